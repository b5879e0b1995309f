"""Reads files by their number out of folders and archives."""

import os
import zipfile
from pathlib import Path
from typing import Any


class FolderReader:
    """Reads files below a folder.

    Args:
        root: The folder.
        files: The paths of the files below it.
    """

    def __init__(self, root: Path, files: list[str]) -> None:
        self.root, self.files = root, files

    def name(self, i: int) -> str:
        """Returns the path of a file."""
        return str(self.root / self.files[i])

    def read(self, i: int) -> bytes:
        """Returns the content of a file."""
        return (self.root / self.files[i]).read_bytes()


class ZipReader:
    """Reads members of a zip file, which each process opens for itself.

    Args:
        path: The zip file.
        files: The names of the members.
    """

    def __init__(self, path: Path, files: list[str]) -> None:
        self.path, self.files = path, files
        self._open: tuple[int, zipfile.ZipFile] | None = None

    def name(self, i: int) -> str:
        """Returns the zip file and the member."""
        member = self.files[i].replace("\\", "/")  # as it would be, had the file not been packed on Windows
        return f"{self.path}/{member}"

    def read(self, i: int) -> bytes:
        """Returns the content of a member."""
        if self._open is None or self._open[0] != os.getpid():
            self._open = (os.getpid(), zipfile.ZipFile(self.path))
        return self._open[1].read(self.files[i])

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": None}


class TarReader:
    """Reads members of plain tar files from where they lie in the file.

    Args:
        members: The tar file, name, offset and size of each member.
    """

    def __init__(self, members: list[tuple[str, str, int, int]]) -> None:
        self.members = members

    def name(self, i: int) -> str:
        """Returns the tar file and the member."""
        return "/".join(self.members[i][:2])

    def read(self, i: int) -> bytes:
        """Returns the content of a member."""
        path, _, offset, size = self.members[i]
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(size)


class MemoryReader:
    """Keeps the members of a compressed tar file in memory, as such a file cannot be read from the middle.

    Args:
        names: The names of the members.
        contents: The contents of the members.
    """

    def __init__(self, names: list[str], contents: list[bytes]) -> None:
        self.names, self.contents = names, contents

    def name(self, i: int) -> str:
        """Returns the tar file and the member."""
        return self.names[i]

    def read(self, i: int) -> bytes:
        """Returns the content of a member."""
        return self.contents[i]
