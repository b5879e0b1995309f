import io
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from supertokenvit.data.sources import DataError, stratified_split
from supertokenvit.data.splits import fingerprint, open_splits
from tests.training.conftest import make_folder


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
    for part in ("train", "val"):
        a, b = getattr(plain, part), pickle.loads(pickle.dumps(getattr(packed, part)))
        assert a.classes == b.classes and a.targets.tolist() == b.targets.tolist() and names(a) == names(b)
        assert a.image(0).tobytes() == b.image(0).tobytes()


def test_a_folder_without_parts_is_split_by_the_rule_it_states(tmp_path):
    splits = open_splits(str(make_folder(tmp_path / "data", per_class=20)), val_fraction=0.2, seed=5)
    assert (len(splits.train), len(splits.val), splits.test) == (32, 8, None)
    assert np.bincount(splits.val.targets).tolist() == [4, 4]
    assert not set(names(splits.train)) & set(names(splits.val))
    assert "8 images cut" in splits.rule and "0.2" in splits.rule and "seed 5" in splits.rule


def test_a_test_part_is_never_used_for_validation(tmp_path):
    make_folder(tmp_path / "data" / "train", per_class=10)
    make_folder(tmp_path / "data" / "test", per_class=5, seed=1)
    splits = open_splits(str(tmp_path / "data"))
    assert (len(splits.train), len(splits.val), len(splits.test)) == (18, 2, 10)
    assert "/train/" in splits.val.name(0)


def test_missing_class_folder_in_val_does_not_shift_labels(tmp_path):
    make_folder(tmp_path / "data" / "train", classes=("a", "b", "c"))
    make_folder(tmp_path / "data" / "valid", classes=("a", "c"), per_class=2)
    splits = open_splits(str(tmp_path / "data"))
    assert splits.val.classes == ["a", "b", "c"]
    assert sorted(splits.val.targets.tolist()) == [0, 0, 2, 2]
    assert "no images of b" in splits.rule


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: None, "not there"),
        (lambda root: root.mkdir(), "empty"),
        (lambda root: (root.mkdir(), Image.new("RGB", (4, 4)).save(root / "a.png")), "no images in class folders"),
        (lambda root: make_folder(root, classes=("cat",)), "one class only"),
    ],
    ids=["missing", "empty", "no class folders", "one class"],
)
def test_unusable_data_is_one_line_with_the_expected_layout(tmp_path, make, said):
    make(tmp_path / "data")
    with pytest.raises(DataError, match=said) as error:
        open_splits(str(tmp_path / "data"))
    assert "CLASS/IMAGE" in str(error.value) and "\n" not in str(error.value)


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


@pytest.mark.parametrize("several", [False, True])
def test_hugging_face_dataset_from_disk(tmp_path, several):
    import datasets

    label = datasets.ClassLabel(names=["cat", "dog"])
    if several:
        label = datasets.Sequence(label)
    features = datasets.Features({"image": datasets.Image(), "label": label})
    rows = {
        "image": [Image.new("RGB", (4, 4), (i, 0, 0)) for i in range(20)],
        "label": [[0, 1] if several else i % 2 for i in range(20)],
    }
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "set"))
    splits = open_splits(f"hfds/{tmp_path / 'set'}")
    assert splits.train.classes == ["cat", "dog"] and len(splits.train) == 18
    assert splits.train.multi_label is several
    i = 3
    if several:
        assert splits.train.targets.tolist() == [[1, 1]] * 18
    else:
        assert splits.train.image(i).getpixel((0, 0))[0] % 2 == splits.train.targets[i]


def save_hf(folder, **labels):
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    tables = {}
    for part, values in labels.items():
        rows = {"image": [Image.new("RGB", (4, 4), (i, 0, 0)) for i in range(len(values))], "label": values}
        tables[part] = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(tables).save_to_disk(str(folder))
    return f"hfds/{folder}"


def test_hugging_face_test_part_without_labels_is_left_out_and_said_so(tmp_path):
    splits = open_splits(save_hf(tmp_path / "set", train=[0, 1] * 5, test=[-1] * 4))
    assert splits.test is None and "test split is left out: 4" in splits.rule


def test_hugging_face_images_without_labels_are_not_trained_on(tmp_path):
    with pytest.raises(DataError, match="2 images of the train split have no label"):
        open_splits(save_hf(tmp_path / "set", train=[0, 1, -1, -1]))


def test_a_class_list_of_two_with_images_of_one_is_one_class(tmp_path):
    with pytest.raises(DataError, match="one class only \\(cat\\)"):
        open_splits(save_hf(tmp_path / "set", train=[0] * 6))


@pytest.mark.parametrize("kind", ["folder", "digits"])
def test_sources_survive_pickling(tmp_path, kind):
    source = open_splits("digits" if kind == "digits" else str(make_folder(tmp_path / "data"))).train
    copy = pickle.loads(pickle.dumps(source))
    assert fingerprint(copy) == fingerprint(source) and copy.image(3).tobytes() == source.image(3).tobytes()


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


def test_digits_have_a_fixed_test_part():
    splits = open_splits("digits")
    assert len(splits.train) + len(splits.val) + len(splits.test) == 1797
    assert abs(len(splits.test) - 359) <= 2 and splits.train.image(0).size == (8, 8)
    assert fingerprint(splits.test) == fingerprint(open_splits("digits", seed=9).test)
    assert fingerprint(splits.train) != fingerprint(open_splits("digits", seed=9).train)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0.01, 0.9), st.integers(0, 99))
def test_stratified_split_is_a_partition_that_leaves_every_class_in_training(targets, fraction, seed):
    targets = np.array(targets)
    rest, part = stratified_split(targets, fraction, seed)
    assert sorted([*rest, *part]) == list(range(len(targets)))
    assert set(targets[rest]) == set(targets)
    for c in set(targets):
        n = (targets == c).sum()
        assert ((targets[part] == c).sum() >= 1) == (n >= 2)
    again = stratified_split(targets, fraction, seed)
    assert rest.tolist() == again[0].tolist()


def test_the_fingerprint_survives_a_move_but_not_a_change(tmp_path):
    first = fingerprint(open_splits(str(make_folder(tmp_path / "here"))).train)
    (tmp_path / "here").rename(tmp_path / "there")
    assert fingerprint(open_splits(str(tmp_path / "there")).train) == first
    (tmp_path / "there" / "cat" / "000.png").rename(tmp_path / "there" / "cat" / "999.png")
    assert fingerprint(open_splits(str(tmp_path / "there")).train) != first
