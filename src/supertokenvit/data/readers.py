"""Files by number, out of folders and archives; each process opens them for itself."""

import os
import zipfile
from pathlib import Path
from typing import Any


class FolderReader:
    """Files below a folder.

    Args:
        root: The folder.
        files: Paths below it.
    """

    def __init__(self, root: Path, files: list[str]) -> None:
        self.root, self.files = root, files

    def name(self, i: int) -> str:
        """Path of a file."""
        return str(self.root / self.files[i])

    def read(self, i: int) -> bytes:
        """Content of a file."""
        return (self.root / self.files[i]).read_bytes()


class ZipReader:
    """Members of a zip file; each process opens it for itself.

    Args:
        path: Of the zip file.
        files: Names of members.
    """

    def __init__(self, path: Path, files: list[str]) -> None:
        self.path, self.files = path, files
        self._open: tuple[int, zipfile.ZipFile] | None = None

    def name(self, i: int) -> str:
        """Zip file and member."""
        return f"{self.path}/{self.files[i]}"

    def read(self, i: int) -> bytes:
        """Content of a member."""
        if self._open is None or self._open[0] != os.getpid():
            self._open = (os.getpid(), zipfile.ZipFile(self.path))
        return self._open[1].read(self.files[i])

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": None}


class TarReader:
    """Members of plain tar files, by their place in the file.

    Args:
        members: (tar file, name, offset, size) of each.
    """

    def __init__(self, members: list[tuple[str, str, int, int]]) -> None:
        self.members = members

    def name(self, i: int) -> str:
        """Tar file and member."""
        return "/".join(self.members[i][:2])

    def read(self, i: int) -> bytes:
        """Content of a member."""
        path, _, offset, size = self.members[i]
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(size)


class MemoryReader:
    """Members of a compressed tar file, which allows no random access, kept in memory.

    Args:
        names: Of the members.
        contents: Of the members.
    """

    def __init__(self, names: list[str], contents: list[bytes]) -> None:
        self.names, self.contents = names, contents

    def name(self, i: int) -> str:
        """Tar file and member."""
        return self.names[i]

    def read(self, i: int) -> bytes:
        """Content of a member."""
        return self.contents[i]
