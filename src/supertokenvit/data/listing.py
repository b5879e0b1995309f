"""Finds image files in folders, and holds the one rule for which names are those of images.

Training, evaluation, `check-data` and `predict` all list files here, so that they agree on what is in a folder.
"""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from .decode import IMAGE_ENDINGS, printable
from .sources import DataError

# what the system says of a link that leads nowhere, or in a circle
BROKEN_LINK = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


def pieces(name: str | Path) -> tuple[str, ...]:
    r"""Splits the path of a file below a data set's root into its folders and its name.

    A backslash separates like a slash: archives that were packed on Windows may have CLASS\IMAGE.
    """
    return tuple(piece for piece in str(name).replace("\\", "/").split("/") if piece not in ("", "."))


def is_image_name(name: str | Path) -> bool:
    """Whether a path or an archive member is taken for an image.

    Its ending must be one of IMAGE_ENDINGS, in small or capital letters. It must not be hidden, nor lie in a hidden
    folder; nor may it be what macOS leaves beside the files of others (`._x.jpg`, `__MACOSX`).

    Args:
        name: The path below the root of the data set. Folders above the root do not count.
    """
    return is_image_path(pieces(name))


def is_image_path(path: Sequence[str]) -> bool:
    """Whether a path, given as its folders and its name, is taken for an image."""
    return bool(path) and has_image_ending(path[-1]) and all(map(is_visible, path))


def has_image_ending(name: str) -> bool:
    """Whether the name of a file ends as those of images do."""
    return os.path.splitext(name)[1].lower() in IMAGE_ENDINGS


def is_visible(piece: str) -> bool:
    """Whether a folder or file of this name is looked at."""
    return not piece.startswith(".") and piece != "__MACOSX"


def list_images(root: str | Path) -> list[str]:
    """Lists the images below a folder as paths relative to it, in the order of their folders and names.

    Args:
        root: The folder.

    Raises:
        DataError: The folder, or one below it, cannot be read.
    """
    return [file for file in list_files(root) if has_image_ending(file)]


def list_files(root: str | Path) -> list[str]:
    """Lists the visible files below a folder as paths relative to it, in the order of their folders and names.

    Folders that are links are entered, unless they lead back up to a folder that is being listed, or above it. Links
    that lead nowhere are skipped.

    Args:
        root: The folder.

    Raises:
        DataError: The folder, or one below it, cannot be read.
    """
    files: list[str] = []
    # What is still to be visited, the next one last: a path below the root, and for a folder its trail, which is the
    # real paths of the folders from the root to it. A file has an empty trail.
    waiting: list[tuple[str, tuple[str, ...]]] = [("", (os.path.realpath(root),))]
    while waiting:
        below, trail = waiting.pop()
        if not trail:
            files.append(below)
            continue
        for entry in reversed(_entries(os.path.join(root, below) if below else os.fspath(root))):
            path = os.path.join(below, entry.name)
            if _is(entry, folder=True):
                link = entry.is_symlink()
                real = os.path.realpath(entry.path) if link else os.path.join(trail[-1], entry.name)
                leads_back = link and any(_is_inside(folder, real) for folder in trail)
                if not leads_back:
                    waiting.append((path, (*trail, real)))
            elif _is(entry, folder=False):
                waiting.append((path, ()))
    return files


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """The visible entries of one folder in the order of their names; the system is asked about the folder only once."""
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if is_visible(e.name)), key=lambda e: os.path.normcase(e.name))
    except OSError as error:
        raise _unreadable(folder, error) from None


def _is(entry: os.DirEntry[str], *, folder: bool) -> bool:
    """Whether an entry is, or as a link leads to, a folder or else a file."""
    try:
        return entry.is_dir() if folder else entry.is_file()
    except OSError as error:
        if entry.is_symlink() and error.errno in BROKEN_LINK:
            return False
        raise _unreadable(entry.path, error) from None


def _is_inside(folder: str, other: str) -> bool:
    """Whether a real path is another one, or lies below it."""
    return folder == other or folder.startswith(other.rstrip(os.sep) + os.sep)


def _unreadable(path: str, error: OSError) -> DataError:
    return DataError(
        f"{printable(path)}: cannot be listed ({error.strerror or error}); allow reading it, or move it elsewhere"
    )


def find_images(paths: Sequence[str]) -> list[Path]:
    """Finds the files that are named, whatever their names, and every image below the folders that are named.

    Args:
        paths: Files and folders.

    Raises:
        DataError: A folder has no images, or cannot be read.
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
