"""One rule for what an image file is, and the listing of folders by it; every verb uses both."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from .decode import IMAGE_ENDINGS
from .sources import DataError


def is_image_name(name: str) -> bool:
    """Says whether a path below a data folder, or the name of an archive's member, is that of an image.

    Its ending is one of decode.IMAGE_ENDINGS in any case. Nothing on its way is hidden: a name that begins with a dot
    (such as macOS's `._x.jpg`), or macOS's folder `__MACOSX`.

    Args:
        name: With slashes or backslashes between folders.
    """
    pieces = PurePosixPath(name.replace("\\", "/")).parts
    if not pieces or PurePosixPath(pieces[-1]).suffix.lower() not in IMAGE_ENDINGS:
        return False
    return not any(piece.startswith((".", "__MACOSX")) for piece in pieces)


def list_files(root: str | os.PathLike) -> list[str]:
    """Lists the paths of all files below a folder, in order.

    Folders that are links are entered, unless they lead back up to one that is being listed. Links to nothing are
    left out.

    Raises:
        DataError: A folder cannot be read.
    """
    found: list[str] = []
    _list(os.fspath(root), "", (os.path.realpath(root),), found)
    return sorted(found, key=lambda file: file.split(os.sep))


def _list(folder: str, below: str, above: tuple[str, ...], found: list[str]) -> None:
    """Adds the files of a folder to those that were found.

    Args:
        folder: Its path.
        below: The same, seen from where the listing began, with a slash at its end.
        above: Real paths of the folders that the listing came through, this one last.
        found: What to add to.
    """
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise DataError(f"{folder}: this folder cannot be read ({error.strerror})") from None
    for entry in entries:
        if entry.is_dir():
            real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(above[-1], entry.name)
            if not any(way == real or way.startswith(real + os.sep) for way in above):
                _list(entry.path, below + entry.name + os.sep, (*above, real), found)
        elif _is_file(entry):
            found.append(below + entry.name)


def _is_file(entry: os.DirEntry) -> bool:
    """Says whether an entry is a file, or a link to one; a link to itself is not."""
    try:
        return entry.is_file()
    except OSError:
        return False


def list_images(root: str | os.PathLike) -> list[str]:
    """Lists the paths of all images below a folder, in order, as list_files and is_image_name say.

    Raises:
        DataError: A folder cannot be read.
    """
    return [file for file in list_files(root) if is_image_name(file)]


def find_images(paths: Sequence[str]) -> list[Path]:
    """Finds files as they are named, and every image below the folders.

    Raises:
        DataError: A folder without images, or one that cannot be read.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found = list_images(path)
            if not found:
                raise DataError(f"{path}: no image in this folder")
            files += [path / file for file in found]
        else:
            files.append(path)
    return files
