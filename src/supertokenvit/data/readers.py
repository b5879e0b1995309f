"""Reads files by their number out of folders and archives."""

import lzma
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from .decode import MAX_BYTES, BadImage, printable, read_file, too_large

# what Python's own unpackers raise on damaged, encrypted or unknown content; bz2 raises an OSError without a number
UNPACKING_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError)


class FolderReader:
    """Reads files below a folder.

    Args:
        root: The folder.
        files: The paths of the files below it.
    """

    def __init__(self, root: Path, files: list[str]) -> None:
        self.root, self.files = root, files
        self.prefix = os.path.join(root, "")

    def name(self, i: int) -> str:
        """Returns the path of a file."""
        return self.prefix + self.files[i]

    def read(self, i: int) -> bytes:
        """Returns the content of a file."""
        return read_file(self.root / self.files[i])


class ZipReader:
    """Reads members of a zip file, which each process opens for itself.

    Args:
        path: The zip file.
        files: The path of each file in it, and the name of the member with its content (another one for a link).
    """

    def __init__(self, path: Path, files: list[tuple[str, str]]) -> None:
        self.path, self.files = path, files
        self._open: tuple[int, zipfile.ZipFile] | None = None

    def name(self, i: int) -> str:
        """Returns the zip file and the path in it."""
        return f"{self.path}/{self.files[i][0]}"

    def read(self, i: int) -> bytes:
        """Returns the content of a member.

        Raises:
            BadImage: It is damaged, encrypted, packed in an unknown way, or too large.
        """
        if self._open is None or self._open[0] != os.getpid():
            self._open = (os.getpid(), zipfile.ZipFile(self.path))
        try:
            with self._open[1].open(self.files[i][1]) as member:
                content = member.read(MAX_BYTES + 1)
        except UNPACKING_ERRORS as error:
            raise BadImage(printable(self.name(i)), f"cannot be unpacked ({error})") from None
        except OSError as error:
            if error.errno is not None:
                raise
            raise BadImage(printable(self.name(i)), f"cannot be unpacked ({error})") from None
        if len(content) > MAX_BYTES:
            raise too_large(printable(self.name(i)))
        return content

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": None}


class TarMember(NamedTuple):
    """A file in a tar file."""

    archive: str
    """Path of the tar file."""
    name: str
    """Path of the file in it."""
    offset: int
    """Where its content begins, in bytes."""
    size: int
    """Length of its content in bytes."""
    content: bytes | None = None
    """The content itself, if the tar file is compressed: such a file cannot be read from the middle."""


class TarReader:
    """Reads members of tar files from where they lie in the file, or from memory if the file is compressed.

    Args:
        members: What to read.
    """

    def __init__(self, members: list[TarMember]) -> None:
        self.members = members

    def name(self, i: int) -> str:
        """Returns the tar file and the path in it."""
        return f"{self.members[i].archive}/{self.members[i].name}"

    def read(self, i: int) -> bytes:
        """Returns the content of a member.

        Raises:
            BadImage: It is too large.
        """
        member = self.members[i]
        if member.size > MAX_BYTES:
            raise too_large(printable(self.name(i)))
        if member.content is not None:
            return member.content
        with open(member.archive, "rb") as file:
            file.seek(member.offset)
            return file.read(member.size)
