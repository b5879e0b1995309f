"""Finds splits and classes in the paths of files: which folders are splits, which are classes, and what is neither."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .listing import counted, has_image_ending, is_image_path, is_visible
from .sources import SPLIT_NAMES, split_of

# files that may lie beside images, and are no images that somebody might miss
COMPANIONS = {"labels.csv", "classes.txt", "readme.md", "readme.txt", "readme", "license", "license.txt", "license.md"}
COMPANIONS |= {"attribution.txt"}
LAYOUT = "expected CLASS/IMAGE, or train/CLASS/IMAGE with val and test beside train"
Path = tuple[str, ...]


def is_called_as_split(name: str) -> bool:
    """Whether a name is that of a split and nothing else: `Training`, `val`, `test`."""
    return name.lower() in SPLIT_NAMES


@dataclass
class Layout:
    """Where the images of a data set belong.

    Args:
        splits: For each split the number and the class of each image; a split without images has an empty list.
        left_out: What is not read, and what else a person should know; a line for each.
    """

    splits: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def sort_into_splits(paths: Sequence[Path], folders: Iterable[Path] = ()) -> Layout:
    """Sorts image files into splits and classes by their paths, for layouts with and without folders for the splits.

    Folders above the layout, as archives often have one, are skipped, and so is a folder of a split that is in a folder
    of the same split.

    Args:
        paths: The folders and the name of each file.
        folders: Further folders, which may be empty.
    """
    images = [(i, path) for i, path in enumerate(paths) if is_image_path(path)]
    everything = {path[:n] for path in paths for n in range(1, len(path))} | set(folders)
    everything = {folder for folder in everything if all(map(is_visible, folder))}
    depth = _top_folders(images, everything)
    top = next((path[:depth] for _, path in images if len(path) > depth + 1), ())
    stray = [i for i, path in images if path[:depth] != top]
    below = [(i, path[depth:]) for i, path in images if path[:depth] == top]
    inside = {folder[depth:] for folder in everything if folder[:depth] == top and len(folder) > depth}
    holders = _folders_of_splits(below, inside)
    if holders:
        layout, more, classes = _with_splits(below, inside, holders)
    else:
        layout, more, classes = _without_splits(below, inside)
    stray += more
    layout.left_out += _kinds_of_files(paths)
    if classes:
        layout.left_out.append(counted("folder without an image", sorted("/".join(c) for c in classes)))
    if stray and layout.splits:
        names = ["/".join(paths[i]) for i in sorted(stray)]
        layout.left_out.append(counted("image in no split or no class folder", names))
    return layout


def _top_folders(images: list[tuple[int, Path]], everything: set[Path]) -> int:
    """Counts the folders above the layout: those that hold everything but stray images, and are no splits."""
    depth = 0
    while True:
        deep = [path[depth:] for _, path in images if len(path) > depth + 2]
        firsts = {path[0] for path in deep}
        # an image right in another folder makes that folder a class
        firsts |= {path[depth] for _, path in images if len(path) == depth + 2}
        if not deep or len(firsts) != 1:
            return depth
        (first,) = firsts
        beside = {folder[depth] for folder in everything if len(folder) > depth} - {first}
        if is_called_as_split(first) or (split_of(first) and any(map(split_of, beside))):
            return depth
        depth += 1


def _folders_of_splits(images: list[tuple[int, Path]], folders: set[Path]) -> dict[str, str]:
    """Returns the folders that hold splits with the split of each; none if the folders are classes."""
    above = {path[0] for _, path in images if len(path) > 2}
    held = {folder: split for folder in above if (split := split_of(folder))}
    exact = any(is_called_as_split(folder) and held.get(folder) == "train" for folder in held)
    # folders that are all called val and test are splits, not classes, even without one called train
    whole = bool(above) and {path[0] for _, path in images if len(path) > 1} == set(held)
    several = "train" in held.values() and len(set(held.values())) > 1
    if not (exact or whole or several):
        return {}
    # those without an image below them are splits as well, and their images are missing
    return {folder[0]: split for folder in sorted(folders) if (split := split_of(folder[0]))}


def _with_splits(
    images: list[tuple[int, Path]], folders: set[Path], holders: dict[str, str]
) -> tuple[Layout, list[int], set[Path]]:
    """Sorts images below folders of splits; also returns the stray ones, and the class folders without any."""
    layout, stray, classes = Layout(), [], set[Path]()
    for holder, split in holders.items():
        mine = [(i, path[1:]) for i, path in images if path[0] == holder]
        inside = {folder[1:] for folder in folders if folder[0] == holder and len(folder) > 1}
        while mine and all(len(path) > 2 for _, path in mine):
            doubled = {path[0] for _, path in mine}
            if len(doubled) > 1 or not (doubled == {holder} or split_of(next(iter(doubled))) == split):
                break
            mine = [(i, path[1:]) for i, path in mine]
            inside = {folder[1:] for folder in inside if folder[0] in doubled and len(folder) > 1}
        there = [(i, path[0]) for i, path in mine if len(path) > 1]
        stray += [i for i, path in mine if len(path) == 1]
        if there or split == "val":  # an empty val is an error later; without it, one would be cut from train instead
            layout.splits.setdefault(split, []).extend(there)
        empty = {folder[0] for folder in inside} - {name for _, name in there}
        classes |= {(holder, name) for name in empty}
        if not mine and split != "val":
            classes.add((holder,))
    stray += [i for i, path in images if path[0] not in holders]
    return layout, stray, classes


def _without_splits(images: list[tuple[int, Path]], folders: set[Path]) -> tuple[Layout, list[int], set[Path]]:
    """Sorts images in class folders; also returns the stray ones, and the class folders without any."""
    layout = Layout()
    classes = {path[0] for _, path in images if len(path) > 1}
    copies = {name for name in classes if _repeats(name, classes - {name}, images)}
    there = [(i, path[0]) for i, path in images if len(path) > 1 and path[0] not in copies]
    if there:
        layout.splits["train"] = there
    called = sorted(name for name in classes if split_of(name))
    if called:
        layout.left_out.append(
            f"{', '.join(called)}: taken for classes, though called like splits; a split has class folders in it"
        )
    stray = [i for i, path in images if len(path) == 1 or path[0] in copies]
    without: set[Path] = {folder[:1] for folder in folders} - {(name,) for name in classes}
    return layout, stray, without


def _repeats(name: str, others: set[str], images: list[tuple[int, Path]]) -> bool:
    """Whether a folder holds all the other class folders once more and no image of its own."""
    mine = [path for _, path in images if path[0] == name]
    return len(others) > 1 and all(len(path) > 2 for path in mine) and {path[1] for path in mine} >= others


def _kinds_of_files(paths: Sequence[Path]) -> list[str]:
    """Says which files are no images by their endings, a line for each ending."""
    kinds: dict[str, list[str]] = {}
    for path in paths:
        if all(map(is_visible, path)) and not has_image_ending(path[-1]) and path[-1].lower() not in COMPANIONS:
            _, dot, ending = path[-1].rpartition(".")
            kinds.setdefault(f"file .{ending}" if dot else "file without an ending", []).append("/".join(path))
    return [counted(kind, names) for kind, names in sorted(kinds.items())]
