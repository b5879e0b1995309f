"""Finds splits and classes in the paths of files: which folders are splits, which are classes, and what is neither."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .listing import counted, has_image_ending, is_visible
from .sources import SPLIT_NAMES, split_of

# files that may lie beside images, and are no images that somebody might miss
COMPANIONS = {"labels.csv", "classes.txt", "readme.md", "readme.txt", "readme", "license", "license.txt", "license.md"}
COMPANIONS |= {"attribution.txt"}
LAYOUT = "expected CLASS/IMAGE, or train/CLASS/IMAGE with val and test beside train"
Path = tuple[str, ...]  # the folders of a path
Images = dict[Path, list[int]]  # numbers of images by their folders


def is_called_as_split(name: str) -> bool:
    """Whether a name is that of a split and nothing else: `Training`, `val`, `test`."""
    return name.lower() in SPLIT_NAMES


@dataclass
class Layout:
    """Where the images of a data set belong.

    Args:
        splits: For each split the numbers of its images by their classes; a split without images has none.
        left_out: What is not read, and what else a person should know; a line for each.
    """

    splits: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def sort_into_splits(files: Sequence[str], folders: Iterable[str] = ()) -> Layout:
    """Sorts image files into splits and classes by their paths, for layouts with and without folders for the splits.

    Folders above the layout, as archives often have one, are skipped, and so is a folder of a split that is in a folder
    of the same split.

    Args:
        files: The paths of the files, with / between folders and names.
        folders: Further folders, which may be empty.
    """
    held, others = _by_folder(files)
    everything = {path[:n] for path in held for n in range(1, len(path) + 1)}
    for path in [*(_pieces(folder) for folder in folders), *others]:
        everything |= {path[:n] for n in range(1, len(path) + 1) if all(map(is_visible, path[:n]))}
    depth = _top_folders(held, everything)
    top = next((path[:depth] for path in held if len(path) > depth), ())
    stray = [i for path, images in held.items() if path[:depth] != top for i in images]
    below = {path[depth:]: images for path, images in held.items() if path[:depth] == top}
    inside = {folder[depth:] for folder in everything if folder[:depth] == top and len(folder) > depth}
    holders = _folders_of_splits(below, inside)
    sort = _with_splits if holders else _without_splits
    layout, more, bare = sort(below, inside, holders)
    stray += more
    layout.left_out += _kinds_of_files(others)
    if bare:
        layout.left_out.append(counted("folder without an image", sorted("/".join(path) for path in bare)))
    if stray and layout.splits:
        names = [files[i] for i in sorted(stray)]
        layout.left_out.append(counted("image in no split or no class folder", names))
    return layout


def _pieces(folder: str) -> Path:
    """The folders of a path."""
    return tuple(folder.split("/")) if folder else ()


def _by_folder(files: Sequence[str]) -> tuple[dict[Path, list[int]], dict[Path, list[str]]]:
    """The numbers of the images by their folders, and the paths of visible files that are none by theirs."""
    images: dict[str, list[int]] = {}
    others: dict[str, list[str]] = {}
    for i, file in enumerate(files):
        folder, _, name = file.rpartition("/")
        if has_image_ending(name):
            if is_visible(name):
                images.setdefault(folder, []).append(i)
        elif is_visible(name) and name.lower() not in COMPANIONS:
            others.setdefault(folder, []).append(file)

    def visible(found: dict) -> dict:
        paths = {_pieces(folder): value for folder, value in found.items()}
        return {path: value for path, value in paths.items() if all(map(is_visible, path))}

    return visible(images), visible(others)


def _top_folders(held: Images, everything: set[Path]) -> int:
    """Counts the folders above the layout: those that hold everything but stray images, and are no splits."""
    depth = 0
    while True:
        # an image right in another folder makes that folder a class
        firsts = {path[depth] for path in held if len(path) > depth}
        deep = any(len(path) > depth + 1 for path in held)
        if not deep or len(firsts) != 1:
            return depth
        (first,) = firsts
        beside = {folder[depth] for folder in everything if len(folder) > depth} - {first}
        if is_called_as_split(first) or (split_of(first) and any(map(split_of, beside))):
            return depth
        depth += 1


def _folders_of_splits(held: Images, folders: set[Path]) -> dict[str, str]:
    """Returns the folders that hold splits with the split of each; none if the folders are classes."""
    above = {path[0] for path in held if len(path) > 1}
    splits = {folder: split for folder in above if (split := split_of(folder))}
    exact = any(is_called_as_split(folder) and split == "train" for folder, split in splits.items())
    # folders that are all called val and test are splits, not classes, even without one called train
    whole = bool(above) and {path[0] for path in held if path} == set(splits)
    several = "train" in splits.values() and len(set(splits.values())) > 1
    if not (exact or whole or several):
        return {}
    # those without an image below them are splits as well, and their images are missing
    return {folder[0]: split for folder in sorted(folders) if (split := split_of(folder[0]))}


def _with_splits(held: Images, folders: set[Path], holders: dict[str, str]) -> tuple[Layout, list[int], set[Path]]:
    """Sorts images below folders of splits; also returns the stray ones, and the class folders without any."""
    layout, stray, bare = Layout(), list[int](), set[Path]()
    for holder, split in holders.items():
        mine = {path[1:]: images for path, images in held.items() if path[:1] == (holder,)}
        inside = {folder[1:] for folder in folders if folder[0] == holder and len(folder) > 1}
        while mine and all(len(path) > 1 for path in mine):
            doubled = {path[0] for path in mine}
            if len(doubled) > 1 or not (doubled == {holder} or split_of(next(iter(doubled))) == split):
                break
            mine = {path[1:]: images for path, images in mine.items()}
            inside = {folder[1:] for folder in inside if folder[0] in doubled and len(folder) > 1}
        stray += mine.pop((), [])
        if mine or split == "val":  # an empty val is an error later; without it, one would be cut from train instead
            _add(layout.splits.setdefault(split, {}), mine)
        bare |= {(holder, folder[0]) for folder in inside} - {(holder, path[0]) for path in mine}
        if not mine and split != "val":
            bare.add((holder,))
    stray += [i for path, images in held.items() if not path or path[0] not in holders for i in images]
    return layout, stray, bare


def _without_splits(held: Images, folders: set[Path], _: dict[str, str]) -> tuple[Layout, list[int], set[Path]]:
    """Sorts images in class folders; also returns the stray ones, and the class folders without any."""
    layout = Layout()
    classes = {path[0] for path in held if path}
    copies = {name for name in classes if _repeats(name, classes - {name}, held)}
    kept = {path: images for path, images in held.items() if path and path[0] not in copies}
    if kept:
        _add(layout.splits.setdefault("train", {}), kept)
    called = sorted(name for name in classes if split_of(name))
    if called:
        layout.left_out.append(
            f"{', '.join(called)}: taken for classes, though called like splits; a split has class folders in it"
        )
    stray = [i for path, images in held.items() if path not in kept for i in images]
    bare: set[Path] = {folder[:1] for folder in folders} - {(name,) for name in classes}
    return layout, stray, bare


def _add(split: dict[str, list[int]], held: Images) -> None:
    """Adds images to the classes of a split, each named by the first of its folders."""
    for path, images in held.items():
        split.setdefault(path[0], []).extend(images)


def _repeats(name: str, others: set[str], held: Images) -> bool:
    """Whether a folder holds all the other class folders once more and no image of its own."""
    mine = [path for path in held if path[:1] == (name,)]
    return len(others) > 1 and all(len(path) > 1 for path in mine) and {path[1] for path in mine} >= others


def _kinds_of_files(others: dict[Path, list[str]]) -> list[str]:
    """Says which files are no images by their endings, a line for each ending."""
    kinds: dict[str, list[str]] = {}
    for file in (file for files in others.values() for file in files):
        _, dot, ending = file.rpartition("/")[2].rpartition(".")
        kinds.setdefault(f"file .{ending}" if dot else "file without an ending", []).append(file)
    return [counted(kind, sorted(names)) for kind, names in sorted(kinds.items())]
