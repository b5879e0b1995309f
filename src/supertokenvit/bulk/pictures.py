"""This module lists the images that are to be answered: files, folders, archives and shards; labels are not needed."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import braceexpand

from ..data.archives import is_zip, tar_members, zip_members
from ..data.decode import BadImage, printable
from ..data.listing import find_images, is_image_name, list_folder
from ..data.readers import TarMember, TarReader, ZipReader
from ..data.shards import SHARD_ENDINGS
from ..data.sources import DataError, Reader

SHARDS = "wds/"
ARCHIVES = (*SHARD_ENDINGS, ".zip")


class ZipMember(NamedTuple):
    """A file in a zip file."""

    archive: str
    """Path of the zip file."""
    name: str
    """Path of the file in it."""
    member: str
    """Name of the member with its content: another one for a link."""


Picture = Path | TarMember | ZipMember


def find_pictures(specs: Sequence[str]) -> list[Picture]:
    """Finds every image that is named, in the order of the names, and within each in the order of folders and names.

    Args:
        specs: Each a file, a folder, a .zip or .tar file (which may be compressed), a pattern of such like
            PATH-{000..010}.tar, or `wds/SHARDS` as training takes them.

    Raises:
        DataError: One is not there, cannot be read, or has no image in it.
    """
    found: list[Picture] = []
    for spec in specs:
        for path in _expanded(spec):
            if path.name.lower().endswith(ARCHIVES) and not path.is_dir():
                found += _in_archive(path)
            else:
                found += find_images([str(path)])
    return found


def _expanded(spec: str) -> list[Path]:
    """The paths that a pattern or a folder of shards stands for."""
    path = Path(spec.removeprefix(SHARDS))
    if path.exists() and not (spec.startswith(SHARDS) and path.is_dir()):
        return [path]
    if path.is_dir():
        shards = [path / file for file in list_folder(path).files if file.lower().endswith(ARCHIVES)]
    else:
        try:
            shards = [Path(name) for name in braceexpand.braceexpand(str(path))]
        except ValueError as error:
            raise DataError(f"{spec}: {error}") from None
    if not shards:
        raise DataError(f"{spec}: no shard in this folder")
    return shards


def _in_archive(path: Path) -> list[Picture]:
    """The images in one archive."""
    if not path.exists():
        raise DataError(f"{path}: there is no such file")
    found: list[Picture]
    if is_zip(path):
        files = zip_members(path).files
        found = [ZipMember(str(path), name, member) for name, member in files.items() if is_image_name(name)]
    else:
        files = tar_members(path, is_image_name).files
        found = [member._replace(name=name) for name, member in files.items() if is_image_name(name)]
    if not found:
        raise DataError(f"{path}: no image in this archive")
    return found


def name_of(picture: Picture) -> str:
    """Returns the path of an image as rows show it; that of an archive's member stands behind the archive's."""
    return printable(picture if isinstance(picture, Path) else f"{picture.archive}/{picture.name}")


def fingerprint_of(pictures: Sequence[Picture]) -> str:
    """Returns hexadecimal digits that change with the names, the order and the sizes of the images' files.

    Contents are not read, as that would take as long as decoding them.
    """
    digest = hashlib.sha256()
    for archive, several in groupby(pictures, _archive_of):
        digest.update(b"" if archive is None else f"{_size_of(archive)}".encode())
        for picture in several:
            size = _size_of(picture) if isinstance(picture, Path) else getattr(picture, "size", 0)
            digest.update(f"\0{name_of(picture)}\0{size}".encode())
    return digest.hexdigest()[:32]


def _size_of(path: str | Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # its row will say what is wrong
        return -1


def _archive_of(picture: Picture) -> str | None:
    return None if isinstance(picture, Path) else picture.archive


class Contents:
    """Gives images one by one to a predictor, and remembers which could not be read.

    Args:
        pictures: What to give.
    """

    def __init__(self, pictures: Sequence[Picture]) -> None:
        self.pictures = pictures
        self.reasons: dict[int, str] = {}
        """Why an image could not be read, by its place."""

    def __iter__(self) -> Iterator[Path | bytes]:
        place = 0
        for archive, several in groupby(self.pictures, _archive_of):
            members = list(several)
            if archive is None:
                yield from members  # type: ignore[misc]
            else:
                yield from self._members(archive, members, place)
            place += len(members)

    def _members(self, archive: str, members: list[Picture], first: int) -> Iterator[bytes]:
        """The contents of members of one archive; nothing for one that cannot be read."""
        reader = _reader(archive, members)
        for number in range(len(members)):
            try:
                yield reader.read(number)
            except BadImage as error:
                self.reasons[first + number] = error.reason
                yield b""
            except OSError as error:
                self.reasons[first + number] = error.strerror or str(error)
                yield b""


def _reader(archive: str, members: list[Picture]) -> Reader:
    """A reader of members of one archive."""
    if isinstance(members[0], TarMember):
        return TarReader(members)  # type: ignore[arg-type]
    return ZipReader(Path(archive), [(member.name, member.member) for member in members])  # type: ignore[union-attr]
