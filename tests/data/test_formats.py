import gzip
import io
import os
import pickle
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from supertokenvit.data.sources import DataError
from supertokenvit.data.splits import fingerprint, open_splits
from tests.data.test_decode import encoded
from tests.training.conftest import make_folder

PIXELS = encoded(Image.new("RGB", (4, 4)))


def names(source):
    return sorted(
        source.name(i).rsplit("/", 2)[-2] + "/" + source.name(i).rsplit("/", 1)[-1] for i in range(len(source))
    )


def pack(folder, path):
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in files:
                archive.write(file, file.relative_to(folder.parent))
    else:
        with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
            for file in files:
                archive.add(file, file.relative_to(folder.parent))
    return path


@pytest.mark.parametrize("kind", ["data.tar", "data.tar.gz", "data.zip"])
def test_an_archive_equals_the_folder_that_was_packed(tmp_path, kind):
    folder = make_folder(tmp_path / "data")
    archive = pack(folder, tmp_path / kind)
    plain, packed = open_splits(str(folder)), open_splits(str(archive))
    for split in ("train", "val"):
        a, b = getattr(plain, split), pickle.loads(pickle.dumps(getattr(packed, split)))
        assert a.classes == b.classes and a.targets.tolist() == b.targets.tolist() and names(a) == names(b)
        assert a.image(0).tobytes() == b.image(0).tobytes()


def test_shards_are_indexed_for_random_access(tmp_path):
    for shard in range(3):
        with tarfile.open(tmp_path / f"train-{shard:03}.tar", "w") as archive:
            for i in range(4):
                file = io.BytesIO()
                Image.new("RGB", (4, 4), (shard * 50, i * 50, 0)).save(file, "PNG")
                for ending, content in (("png", file.getvalue()), ("cls", str(i % 2).encode())):
                    info = tarfile.TarInfo(f"{shard}{i}.{ending}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    (tmp_path / "classes.txt").write_text("no\nyes\n")
    for spec in (f"wds/{tmp_path}", f"wds/{tmp_path}/train-{{000..002}}.tar"):
        splits = open_splits(spec, val_fraction=0.25)
        assert len(splits.train) + len(splits.val) == 12 and splits.train.classes == ["no", "yes"]
        for i in range(len(splits.train)):
            red, green, _ = splits.train.image(i).getpixel((0, 0))
            assert splits.train.targets[i] == green // 50 % 2
    with pytest.raises(DataError, match="no such shard"):
        open_splits(f"wds/{tmp_path}/train-{{000..009}}.tar")


def test_labels_csv_gives_several_labels(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    lines = ["file,labels"]
    for i in range(10):
        Image.new("RGB", (4, 4)).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{'sea|sky' if i % 2 else 'sky'}")
    (folder / "labels.csv").write_text("\n".join(lines))
    splits = open_splits(str(folder))
    assert splits.train.multi_label and splits.train.classes == ["sea", "sky"]
    assert splits.train.targets[:, 1].all()


def write_tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_labelled(folder, text, images=4):
    folder.mkdir(parents=True)
    for i in range(images):
        (folder / f"{i}.png").write_bytes(PIXELS)
    (folder / "labels.csv").write_text(text)


def refused(spec, said):
    with pytest.raises(DataError, match=said) as error:
        open_splits(str(spec))
    assert "\n" not in str(error.value)


def test_val_and_test_folders_without_train_are_not_taken_for_classes(tmp_path):
    for split in ("val", "test"):
        make_folder(tmp_path / "data" / split)
    refused(tmp_path / "data", "no training images")


def test_val_folder_without_class_folders_is_not_replaced_by_a_cut(tmp_path):
    make_folder(tmp_path / "data" / "train")
    (tmp_path / "data" / "val").mkdir()
    (tmp_path / "data" / "val" / "0.png").write_bytes(PIXELS)
    refused(
        tmp_path / "data",
        "val split has no images in class folders .left out: 1 image in no split",
    )


def test_images_in_no_split_or_class_folder_are_counted_and_named(tmp_path):
    for split, number in (("Training", 10), ("Testing", 2), ("extra", 1)):
        make_folder(tmp_path / "data" / split, per_class=number)
    (tmp_path / "data" / "loose.png").write_bytes(PIXELS)
    splits = open_splits(str(tmp_path / "data"))
    assert splits.test is not None and len(splits.test) == 4
    assert splits.left_out == ["3 images in no split or no class folder, such as extra/cat/000.png"]
    assert open_splits(str(make_folder(tmp_path / "tidy"))).left_out == []


@pytest.mark.parametrize(
    ("text", "said"),
    [("name,tags\n0.png,a|b\n", "first line must be file,label"), ("file,labels\n9.png,a|b\n", "not there: 9.png")],
)
def test_wrong_labels_csv_is_one_line(tmp_path, text, said):
    write_labelled(tmp_path / "data", text)
    refused(tmp_path / "data", said)


def test_label_that_only_val_has_is_refused(tmp_path):
    write_labelled(tmp_path / "data" / "train", "file,labels\n0.png,a\n1.png,b\n2.png\n")
    write_labelled(tmp_path / "data" / "val", "file,labels\n0.png,new\n")
    refused(tmp_path / "data", "lack: new")


@pytest.mark.parametrize(
    ("label", "said"),
    [(b"7", "class 7 is not in classes.txt"), (b"owl", "class owl is not"), (b"\xff", "cannot be read")],
)
def test_wrong_label_in_a_shard_is_one_line(tmp_path, label, said):
    write_tar(tmp_path / "s" / "a.tar", {"0.png": PIXELS, "0.cls": b"cat", "1.png": PIXELS, "1.cls": label})
    (tmp_path / "s" / "classes.txt").write_text("cat\ndog\n")
    if label == b"7":
        write_tar(tmp_path / "s" / "a.tar", {"0.png": PIXELS, "0.cls": b"0", "1.png": PIXELS, "1.cls": label})
    refused(f"wds/{tmp_path / 's'}", said)


def test_shard_that_is_no_tar_is_one_line(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"junk" * 500)
    refused(f"wds/{tmp_path}", "a.tar: not a readable tar file .it is none")


def test_compressed_tar_without_the_ending_is_read(tmp_path):
    members = {f"{name}/{i}.png": PIXELS for name in "ab" for i in range(4)}
    plain = write_tar(tmp_path / "plain.tar", members)
    (tmp_path / "data.tar").write_bytes(gzip.compress(plain.read_bytes()))
    assert open_splits(str(tmp_path / "data.tar")).train.image(0).size == (4, 4)


def test_cut_off_compressed_tar_is_one_line(tmp_path):
    noise = {f"a/{i}.png": np.random.default_rng(i).bytes(5000) for i in range(4)}
    packed = gzip.compress(write_tar(tmp_path / "plain.tar", noise).read_bytes())
    (tmp_path / "data.tar.gz").write_bytes(packed[: len(packed) // 2])
    refused(tmp_path / "data.tar.gz", "not a readable tar file")


@pytest.mark.parametrize("content", ["{}", '{"label": ""}'])
def test_a_shard_without_labels_is_one_line(tmp_path, content):
    write_tar(tmp_path / "train-0.tar", {"a.png": PIXELS, "a.json": content.encode()})
    refused(f"wds/{tmp_path / 'train-0.tar'}", "a has no .cls")


def test_a_table_as_excel_saves_it_is_read(tmp_path):
    write_labelled(tmp_path / "data", "\ufefffile,labels\n0.png,cat\n1.png,dog\n2.png,cat|dog\n3.png,\n")
    assert open_splits(str(tmp_path / "data")).train.classes == ["cat", "dog"]


def test_tables_and_lists_of_classes_in_another_encoding_are_one_line(tmp_path):
    write_labelled(tmp_path / "data", "")
    (tmp_path / "data" / "labels.csv").write_bytes("file,labels\n0.png,Käfer\n".encode("cp1252"))
    refused(tmp_path / "data", "labels.csv: not in UTF-8")
    shard = write_tar(tmp_path / "wds" / "a.tar", {"0.png": PIXELS, "0.cls": b"0", "1.png": PIXELS, "1.cls": b"1"})
    (shard.parent / "classes.txt").write_bytes("Käfer\nAmeise\n".encode("cp1252"))
    refused(f"wds/{shard}", "classes.txt: a list of classes that cannot be read: not in UTF-8")
    refused(f"wds/{tmp_path}/a-{{000..010.tar", "Unbalanced")


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="there all names are text")
def test_names_that_are_no_text_are_shown_escaped(tmp_path):
    folder = make_folder(tmp_path / "data")
    os.rename(os.fsencode(folder / "cat" / "000.png"), os.fsencode(folder / "cat") + b"/caf\xe9.png")
    splits = open_splits(str(folder), val_fraction=0)
    assert sum(splits.train.name(i).endswith("caf\\xe9.png") for i in range(len(splits.train))) == 1
    assert len(fingerprint(splits.train)) == 16 and splits.train.image(0).size
    os.rename(os.fsencode(folder / "cat" / "002.png"), os.fsencode(folder) + b"/caf\xe9.txt")
    assert open_splits(str(folder)).left_out == ["1 file .txt: caf\\xe9.txt"]
    os.rename(os.fsencode(folder / "cat"), os.fsencode(folder) + b"/caf\xe9")
    refused(folder, "not in UTF-8: rename its folder")


def shard(path, first, count=2, packed=False):
    """A shard of small images whose labels are 0 and 1 in turn."""
    members = {}
    for i in range(first, first + count):
        members[f"s{i:03}.png"] = encoded(Image.new("RGB", (4, 4), (i, 0, 0)))
        members[f"s{i:03}.cls"] = str(i % 2).encode()
    write_tar(path, members)
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    return path


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train-0.tar", "val-0.tar", "test-0.tar"),
        ("imagenet1k-train-0000.tar", "imagenet1k-validation-0000.tar", "imagenet1k-test-0000.tar"),
        ("set_Training_1.TAR", "set_dev_1.tar", "set_testing_1.Tar"),
        ("train/0.tar", "eval/0.tar", "test/0.tar"),
        ("a-train.tar.gz", "a-val.tgz", "b.test.tar"),
    ],
)
def test_a_word_anywhere_in_the_name_of_a_shard_says_its_split(tmp_path, train, val, test):
    for name, first, count in ((train, 0, 10), (val, 50, 6), (test, 80, 4)):
        shard(tmp_path / "in" / name, first, count, packed=name.endswith("gz"))
    splits = open_splits(f"wds/{tmp_path / 'in'}")
    assert (len(splits.train), len(splits.val), len(splits.test)) == (10, 6, 4)
    assert [splits.val.image(i).getpixel((0, 0))[0] for i in range(6)] == list(range(50, 56))


def test_a_shard_that_does_not_say_its_split_where_others_do_is_refused(tmp_path):
    for name in ("a-train-0.tar", "a-extra-0.tar"):
        shard(tmp_path / name, 0)
    refused(f"wds/{tmp_path}", "a-extra-0.tar does not say its split, and others do .train")
    shard(tmp_path / "b" / "0000.tar", 0, 4)
    shard(tmp_path / "b" / "0001.tar", 4, 4)
    assert len(open_splits(f"wds/{tmp_path / 'b'}", val_fraction=0).train) == 8


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1]", "a.json holds no object with a label, but a list"),
        ("3", "but a int"),
        ('{"label": [1, 2]}', "label of a is a list"),
        ('{"label": null}', "a has no .cls"),
        ('{"label": true}', "label of a is a bool"),
        ("{", "a.json cannot be read as a label"),
        ("\ufeff{", "a.json cannot be read as a label"),
    ],
)
def test_a_json_of_the_wrong_kind_is_one_line(tmp_path, content, said):
    write_tar(tmp_path / "train-0.tar", {"a.png": PIXELS, "a.json": content.encode()})
    refused(f"wds/{tmp_path / 'train-0.tar'}", said)


def test_a_sample_without_an_image_is_counted(tmp_path):
    members = {"a.cls": b"0", "b.png": PIXELS, "b.cls": b"0", "c.png": PIXELS, "c.json": b'{"label": 1.0}'}
    splits = open_splits(f"wds/{write_tar(tmp_path / 'x.tar', members)}", val_fraction=0)
    assert splits.left_out == [f"1 sample without an image: {tmp_path / 'x.tar'}/a"]
    assert splits.train.classes == ["0", "1"]
