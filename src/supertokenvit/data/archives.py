"""Lists the members of archives: links in them are resolved, and what is compressed as a whole is read into memory."""

import lzma
import posixpath
import stat
import tarfile
import zipfile
import zlib
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..machine import free_memory
from .decode import MAX_BYTES
from .listing import counted, pieces
from .readers import UNPACKING_ERRORS, TarMember
from .sources import DataError

TAR_ERRORS = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)
LONGEST_PATH = 4096  # of a link in a zip file, in bytes
PACKERS = {b"7z\xbc\xaf": "7-Zip", b"Rar!": "RAR", b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4"}


@dataclass
class Members:
    """The files in an archive.

    Args:
        files: What a reader needs to know of each file, by its path in the archive, in the order of the paths.
        folders: The folders that the archive names.
        left_out: What cannot be read, a line for each kind.
    """

    files: dict[str, Any] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def is_zip(path: Path) -> bool:
    """Whether a file is a zip file by its content, or at least by its name."""
    with open(path, "rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06") or path.suffix.lower() == ".zip"


def zip_members(path: Path) -> Members:
    """Lists the files of a zip file, each with the name of the member that has its content.

    Args:
        path: Of the zip file.

    Raises:
        DataError: It cannot be read.
    """
    found, links = Members(), dict[str, str]()
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                name = _plain(info.filename)
                if info.is_dir():
                    found.folders.append(name)
                elif stat.S_ISLNK(info.external_attr >> 16):
                    with archive.open(info) as member:
                        target = member.read(LONGEST_PATH).decode(errors="surrogateescape")
                    links[name] = posixpath.join(posixpath.dirname(name), target)
                else:
                    found.files[name] = info.filename
    except (*UNPACKING_ERRORS, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable zip file ({error})") from None
    _resolve(found, links)
    return found


def tar_members(path: Path, wanted: Callable[[str], bool]) -> Members:
    """Lists the files of a tar file as TarMembers. If it is compressed, those that are wanted are read into memory.

    Args:
        path: Of the tar file.
        wanted: Says of a path in the archive whether its content will be read.

    Raises:
        DataError: It cannot be read, or takes more memory than there is.
    """
    found, links = Members(), dict[str, str]()
    compressed = is_compressed(path)
    memory, kept = free_memory() // 2, 0
    try:
        with tarfile.open(path) as archive:
            for info in archive:
                name = _plain(info.name)
                if info.isdir():
                    found.folders.append(name)
                elif info.issym():
                    links[name] = posixpath.join(posixpath.dirname(name), info.linkname)
                elif info.islnk():
                    links[name] = info.linkname
                elif info.isfile():
                    found.files[name] = TarMember(str(path), name, info.offset_data, info.size)
                    if compressed and wanted(name) and info.size <= MAX_BYTES:  # a larger one is refused when read
                        kept += info.size
                        if kept > memory:
                            raise DataError(
                                f"{path}: takes more memory than half of what is free: unpack it to a folder"
                            )
                        content = archive.extractfile(info).read()  # type: ignore[union-attr]
                        found.files[name] = found.files[name]._replace(content=content)
            _resolve(found, links)
            if compressed:
                _read_targets(archive, found, links, wanted)
    except (*TAR_ERRORS, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(f"{path}: not a readable tar file ({_reason(path, error)})") from None
    return found


def is_compressed(path: Path) -> bool:
    """Whether a tar file is packed as a whole, whatever its ending: then no member of it can be read by itself."""
    with open(path, "rb") as file:
        return not file.read(512)[257:262] == b"ustar" and not _is_old_tar(path)


def _is_old_tar(path: Path) -> bool:
    """Whether a file is a tar file that is not compressed, of the time before they had a mark."""
    try:
        with tarfile.open(path, "r:"):
            return True
    except tarfile.TarError:
        return False


def _plain(name: str) -> str:
    """The path of a member without . and with slashes."""
    return "/".join(pieces(name))


def _resolve(found: Members, links: dict[str, str]) -> None:
    """Adds the files to which links lead, under the names that they have through the links; sorts all files."""
    waiting = {name: _plain(posixpath.normpath(target.replace("\\", "/"))) for name, target in links.items()}
    while waiting:
        names, led = sorted(found.files), set[str]()
        for name, target in waiting.items():
            if target in found.files:
                found.files[name] = found.files[target]
                led.add(name)
                continue
            start, end = bisect_left(names, f"{target}/"), bisect_left(names, f"{target}0")  # 0 comes behind /
            for file in names[start:end]:
                if not f"{name}/".startswith(f"{target}/"):
                    found.files[name + file[len(target) :]] = found.files[file]
                    led.add(name)
        if not led:
            found.left_out.append(counted("link that leads nowhere in the archive", sorted(waiting)))
            break
        waiting = {name: target for name, target in waiting.items() if name not in led}
    found.files = dict(sorted(found.files.items()))


def _read_targets(
    archive: tarfile.TarFile, found: Members, links: dict[str, str], wanted: Callable[[str], bool]
) -> None:
    """Reads what is wanted under the name of a link, and was not wanted under its own."""
    for name, member in found.files.items():
        if member.content is None and name != member.name and wanted(name) and member.size <= MAX_BYTES:
            content = archive.extractfile(archive.getmember(member.name)).read()  # type: ignore[union-attr]
            found.files[name] = member._replace(content=content)


def _reason(path: Path, error: Exception) -> str:
    """Says why a file cannot be read as a tar file, and what to do if another program packed it."""
    with open(path, "rb") as file:
        packer = PACKERS.get(file.read(4))
    if packer:
        return f"packed by {packer}: unpack it, or pack it as .zip or .tar"
    if "could not be opened" in str(error):
        return "it is none, and not packed by gzip, bzip2 or xz either"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
