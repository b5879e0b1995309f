"""This module lists the images that are to be answered: files, folders, archives and shards; labels are not needed."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import braceexpand
from PIL import Image

from ..data.archives import is_zip, tar_members, zip_members
from ..data.decode import BadImage, decode, printable, read_file
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
Read = Callable[[], bytes]


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
        for place, (picture, read) in enumerate(zip(self.pictures, reads_of(self.pictures), strict=True)):
            if isinstance(picture, Path):
                yield picture
            else:
                yield self._content(place, read)

    def _content(self, place: int, read: Read) -> bytes:
        """The content of an archive's member; nothing if it cannot be read."""
        try:
            return read()
        except BadImage as error:
            self.reasons[place] = error.reason
        except OSError as error:
            self.reasons[place] = error.strerror or str(error)
        return b""


def reads_of(pictures: Sequence[Picture]) -> Iterator[Read]:
    """Yields for each image what reads its content; each archive is opened once for all of its members in a row."""
    for archive, several in groupby(pictures, _archive_of):
        members: list[Any] = list(several)
        if archive is None:
            yield from (partial(read_file, path) for path in members)
            continue
        reader: Reader = TarReader(members)
        if not isinstance(members[0], TarMember):
            reader = ZipReader(Path(archive), [(member.name, member.member) for member in members])
        yield from (partial(reader.read, number) for number in range(len(members)))


def image_of(picture: Picture, read: Read, enough: int | None = 256) -> Image.Image:
    """Decodes an image to 8-bit RGB.

    Args:
        picture: The image.
        read: From `reads_of`.
        enough: Pixels of the shorter side that are enough (see data.decode.decode).

    Raises:
        BadImage: It cannot be unpacked or decoded.
        OSError: It cannot be read.
    """
    return decode(read(), name_of(picture), enough=enough)
