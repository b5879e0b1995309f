"""Archives as they are found: links, compressions, endings, sizes."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile

import pytest

from supertokenvit.data import archives, readers
from supertokenvit.data.decode import BadImage
from supertokenvit.data.sources import DataError
from supertokenvit.data.splits import open_splits
from supertokenvit_runtime import decode
from tests.data.test_formats import PIXELS, write_tar

MEMBERS = {f"{name}/{i}.png": PIXELS for name in ("cat", "dog") for i in range(3)}


def add(archive, name, content=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    archive.addfile(info, io.BytesIO(content))


def found(path):
    """Names below the archive of the images that training reads, and the splits."""
    splits = open_splits(str(path), val_fraction=0)
    names = [splits.train.name(i).removeprefix(f"{path}/") for i in range(len(splits.train))]
    assert all(splits.train.image(i).size == (4, 4) for i in range(len(names)))
    return names, splits


@pytest.mark.parametrize("pack", [None, gzip, bz2, lzma])
@pytest.mark.parametrize("name", ["data.tar", "data.TAR.GZ", "data.tbz2", "data.Tar.Xz", "data"])
def test_any_compression_under_any_name_is_read(tmp_path, pack, name):
    plain = write_tar(tmp_path / "plain", MEMBERS).read_bytes()
    (tmp_path / name).write_bytes(pack.compress(plain) if pack else plain)
    assert found(tmp_path / name)[0] == sorted(MEMBERS)


@pytest.mark.parametrize("name", ["data.zip", "data.ZIP", "data"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_file_of_any_method_under_any_name_is_read(tmp_path, name, method):
    with zipfile.ZipFile(tmp_path / name, "w", method) as archive:
        for member, content in MEMBERS.items():
            archive.writestr(member, content)
    assert found(tmp_path / name)[0] == sorted(MEMBERS)


@pytest.mark.parametrize("packed", [False, True])
def test_links_in_a_tar_file_are_resolved_inside_it(tmp_path, packed):
    with tarfile.open(tmp_path / "data.tar", "w:gz" if packed else "w") as archive:
        add(archive, "blobs/abc", PIXELS)
        add(archive, "blobs/a.png", PIXELS)
        add(archive, "real/cat/0.png", PIXELS)
        add(archive, "set/dog/1.png", PIXELS)
        add(archive, "set/dog/2.png", type=tarfile.SYMTYPE, linkname="../../blobs/abc")
        add(archive, "set/dog/3.png", type=tarfile.LNKTYPE, linkname="set/dog/1.png")
        add(archive, "set/dog/4.png", type=tarfile.SYMTYPE, linkname="2.png")
        add(archive, "set/cat", type=tarfile.SYMTYPE, linkname="../real/cat")
        add(archive, "set/elk/9.png", type=tarfile.SYMTYPE, linkname="../../../outside.png")
    names, splits = found(tmp_path / "data.tar")
    linked = ["set/cat/0.png", "set/dog/1.png", "set/dog/2.png", "set/dog/3.png", "set/dog/4.png"]
    assert [name for name in names if name.startswith("set/")] == linked
    assert "1 link that leads nowhere in the archive: set/elk/9.png" in splits.left_out


def test_links_in_a_zip_file_are_resolved_inside_it(tmp_path):
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for name in ("cat/0.png", "dog/1.png"):
            archive.writestr(name, PIXELS)
        link = zipfile.ZipInfo("cat/2.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "../dog/1.png")
    assert found(tmp_path / "data.zip")[0] == ["cat/0.png", "cat/2.png", "dog/1.png"]


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"7z\xbc\xaf\x27\x1c", "packed by 7-Zip: unpack it"),
        (b"Rar!\x1a\x07", "packed by RAR: unpack it"),
        (b"\x04\x22\x4d\x18", "packed by lz4: unpack it"),
        (b"GIF89a", "not a readable tar file"),
    ],
)
@pytest.mark.parametrize("spec", ["data.tar", "wds/{}"])
def test_what_cannot_be_unpacked_is_one_line(tmp_path, head, said, spec):
    path = tmp_path / "data.tar"
    path.write_bytes(head + bytes(2000))
    with pytest.raises(DataError, match=said) as error:
        open_splits(spec.format(path) if "wds" in spec else str(path))
    assert "\n" not in str(error.value)


def limited(monkeypatch, size):
    for module in (archives, decode, readers):
        monkeypatch.setattr(module, "MAX_BYTES", size)


def test_a_small_archive_with_a_huge_member_takes_no_memory(tmp_path, monkeypatch):
    limited(monkeypatch, 1000)
    members = {"cat/0.png": PIXELS, "dog/1.png": PIXELS + bytes(5000), "dog/2.png": PIXELS}
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    write_tar(tmp_path / "a.tar", members)
    (tmp_path / "a.tgz").write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))
    for name, content in members.items():
        (tmp_path / "a" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "a" / name).write_bytes(content)
    for kind in ("a.zip", "a.tar", "a.tgz", "a"):
        train = open_splits(str(tmp_path / kind), val_fraction=0).train
        assert train.image(0).size == train.image(2).size == (4, 4)
        with pytest.raises(BadImage, match="over the limit of 0.001 MB for a file"):
            train.image(1)
        if kind == "a.tgz":  # nor was it unpacked when the archive was listed
            assert train.reader.members[1].content is None and train.reader.members[0].content == PIXELS


def test_a_compressed_tar_that_does_not_fit_into_memory_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "a.tgz").write_bytes(gzip.compress(write_tar(tmp_path / "a.tar", MEMBERS).read_bytes()))
    monkeypatch.setattr(archives, "free_memory", lambda: 2 * len(PIXELS))
    with pytest.raises(DataError, match="takes more memory than half of what is free: unpack it"):
        open_splits(str(tmp_path / "a.tgz"))
    assert found(tmp_path / "a.tar")[0] == sorted(MEMBERS)


def test_a_member_that_is_encrypted_or_damaged_is_a_bad_image(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for member, content in MEMBERS.items():
            archive.writestr(member, content)
    raw = bytearray(path.read_bytes())
    for start in range(len(raw)):  # the bit that says of a member that it is encrypted, in both of its headers
        if raw[start : start + 4] in (b"PK\x03\x04", b"PK\x01\x02") and b"dog/1" in raw[start : start + 60]:
            raw[start + (6 if raw[start + 2] == 3 else 8)] |= 1
    place = raw.index(b"cat/0.png") + len("cat/0.png")
    raw[place + 20] ^= 0xFF
    path.write_bytes(raw)
    train = open_splits(str(path), val_fraction=0).train
    for i, name in ((0, "cat/0.png"), (4, "dog/1.png")):
        with pytest.raises(BadImage, match=f"{name}: cannot be unpacked"):
            train.image(i)
    assert train.image(1).size == (4, 4)


def test_a_run_folder_in_an_archive_is_no_data(tmp_path):
    run = {f"runs/run/{name}": b"x" for name in ("recipe.yaml", "log.txt", "samples.png", "curves.png")}
    names, splits = found(write_tar(tmp_path / "data.tar", MEMBERS | run))
    assert names == sorted(MEMBERS) and splits.left_out[0] == "1 output of supertokenvit: runs/run"


def test_the_images_of_a_compressed_tar_are_read_in_one_pass(tmp_path, monkeypatch):
    """Members were read in the order of their names, which unpacks the file from its beginning for each of them."""
    members = {f"{name}/{i}.png": os.urandom(20_000) for i in range(40) for name in ("dog", "cat")}
    (tmp_path / "a.tgz").write_bytes(gzip.compress(write_tar(tmp_path / "a.tar", members).read_bytes(), 1))
    rewound, rewind = [], gzip._GzipReader._rewind
    monkeypatch.setattr(gzip._GzipReader, "_rewind", lambda self: (rewound.append(1), rewind(self)))
    open_splits(str(tmp_path / "a.tgz"), val_fraction=0)
    assert len(rewound) <= 2
