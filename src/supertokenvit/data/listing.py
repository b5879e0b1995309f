"""Finds image files in folders, and holds the one rule for which names are those of images.

Training, evaluation, `check-data` and `predict` all list files here, so that they agree on what is in a folder.
"""

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..run_folder import is_output
from .decode import IMAGE_ENDINGS, printable
from .sources import DataError

# what systems and storage devices keep for themselves, beside the files of people
SYSTEM_NAMES = frozenset(
    ("__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "lost+found", "@eadir")
)
MOST_LINKS = 2  # linked folders on the way to a file: folders that are all linked to each other have endless many ways
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
    folder; nor may it be what systems leave beside the files of people (`._x.jpg`, `__MACOSX`, `@eaDir`).

    Args:
        name: The path below the root of the data set. Folders above the root do not count.
    """
    return is_image_path(pieces(name))


def is_image_path(path: Sequence[str]) -> bool:
    """Whether a path, given as its folders and its name, is taken for an image."""
    return bool(path) and has_image_ending(path[-1]) and all(map(is_visible, path))


def has_image_ending(name: str) -> bool:
    """Whether the name of a file ends as those of images do."""
    stem, dot, ending = name.rpartition(".")
    return bool(stem) and f".{ending.lower()}" in IMAGE_ENDINGS


def is_visible(piece: str) -> bool:
    """Whether a folder or file of this name is looked at."""
    return not piece.startswith(".") and piece.lower() not in SYSTEM_NAMES


@dataclass
class Listing:
    """What is below a folder.

    Args:
        files: The visible files, as paths relative to the folder, in the order of their folders and names.
        folders: The visible folders below it, likewise.
        left_out: What was not entered, a line for each kind.
    """

    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def list_images(root: str | Path) -> list[str]:
    """Lists the images below a folder as paths relative to it, in the order of their folders and names.

    Args:
        root: The folder.

    Raises:
        DataError: The folder, or one below it, cannot be read.
    """
    return [file for file in list_folder(root).files if has_image_ending(file)]


def list_folder(root: str | Path) -> Listing:
    """Lists what is visible below a folder.

    Folders that are links are entered, unless they lead back up to a folder that is being listed, or above it, or lie
    behind MOST_LINKS other such links. Folders that a training or an evaluation wrote are not entered: their pictures
    are no data. Links that lead nowhere are skipped.

    Args:
        root: The folder.

    Raises:
        DataError: The folder, or one below it, cannot be read.
    """
    found = Listing()
    skipped: dict[str, list[str]] = {}
    # What is still to be visited, the next one last: a path below the root, and for a folder its trail, which is the
    # real paths of the folders from the root to it, and the links on the way. A file has an empty trail.
    waiting: list[tuple[str, tuple[str, ...], int]] = [("", (os.path.realpath(root),), 0)]
    while waiting:
        below, trail, links = waiting.pop()
        if not trail:
            found.files.append(below)
            continue
        entries = _entries(os.path.join(root, below) if below else os.fspath(root))
        if below and is_output({entry.name for entry in entries}):
            skipped.setdefault("output of supertokenvit", []).append(below)
            continue
        if below:
            found.folders.append(below)
        if not any(entry.is_symlink() or _is(entry, folder=True) for entry in entries):
            found.files += [os.path.join(below, entry.name) for entry in entries if _is(entry, folder=False)]
            continue
        for entry in reversed(entries):
            path, link = os.path.join(below, entry.name), entry.is_symlink()
            if _is(entry, folder=True):
                real = os.path.realpath(entry.path) if link else os.path.join(trail[-1], entry.name)
                if link and any(_is_inside(folder, real) for folder in trail):
                    continue
                if links + link > MOST_LINKS:
                    skipped.setdefault("linked folder behind other links", []).append(path)
                else:
                    waiting.append((path, (*trail, real), links + link))
            elif _is(entry, folder=False):
                waiting.append((path, (), 0))
            elif link:
                skipped.setdefault("link that leads nowhere", []).append(path)
    outputs = skipped.get("output of supertokenvit")
    if outputs:  # a folder of nothing but outputs is none that lacks images
        found.folders = [folder for folder in found.folders if not _holds_only(folder, outputs, found.files)]
    found.left_out = [counted(what, sorted(paths)) for what, paths in skipped.items()]
    return found


def _holds_only(folder: str, outputs: Sequence[str], files: Sequence[str]) -> bool:
    """Whether a folder holds some of the outputs and none of the files."""
    inside = os.path.join(folder, "")
    return any(path.startswith(inside) for path in outputs) and not any(path.startswith(inside) for path in files)


def counted(what: str, names: Sequence[str]) -> str:
    """Says how many there are of something and names the first: "3 files .heic, such as cat/0.heic"."""
    first = printable(names[0])
    if len(names) == 1:
        return f"1 {what}: {first}"
    noun, space, rest = what.partition(" ")
    ending = "es" if noun.endswith("x") else "s"
    return f"{len(names):,} {noun}{ending}{space}{rest}, such as {first}"


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
