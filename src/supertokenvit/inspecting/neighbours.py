"""This module is `supertokenvit neighbours`: near-duplicates, and the nearest others of every image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..answers import parquet_library
from ..bulk.pictures import ARCHIVES, Picture, find_pictures, image_of, name_of, reads_of
from ..console import watched
from ..data.decode import BadImage
from ..data.sources import DataError
from .duplicates import SAME, agreements, groups_of, nearest, thumbnails
from .reports import COLUMNS as ACROSS
from .reports import ROWS, InspectionError, checked, draw, named, write_table

CANDIDATES = 20  # nearest others among which duplicates are looked for
COLUMNS = ["file", "group", "rank", "neighbour", "similarity", "agreement"]


def find_and_write(
    answers: str, *, images: Sequence[str] | None = None, count: int = 5, out: str = "neighbours.csv"
) -> None:
    """Finds the nearest others of images and near-duplicates among them, and writes a table and a picture.

    Rows of the table are pairs: an image, its rank-th nearest other, the cosine similarity of their embeddings, and how
    far their pixels agree. `group` is the number of the group of near-duplicates that the image is in.

    Args:
        answers: Parquet file of `predict --embeddings`.
        images: Where the images are now, as they were named for `predict`; their paths in the file by default.
        count: Nearest others of each image.
        out: File of the table.

    Raises:
        InspectionError: The file has no embeddings, or its images are not to be found.
    """
    path = checked(out)
    files, embeddings, numbers = read_embeddings(Path(answers))
    pictures = pictures_of(files, numbers, images)
    places, similar = nearest(embeddings, max(count, CANDIDATES))
    reads = list(reads_of(pictures))
    small = watched(thumbnails(lambda i: decoded(pictures, reads, i), len(pictures)), "Comparing", len(pictures))
    agree = agreements(np.stack(list(small)), places)
    groups = groups_of(places, agree >= SAME)
    shown = [files[number] for number in numbers]
    write_table(path, COLUMNS, list(rows_of(shown, groups, places[:, :count], similar, agree)))
    picture = path.with_suffix(".png")
    title = "Groups of near-duplicates" if groups else "No near-duplicates; the nearest pairs instead"
    lines = groups or nearest_pairs(places, similar)
    draw(
        picture, [[named(decoded(pictures, reads, i), shown[i]) for i in line[:ACROSS]] for line in lines[:ROWS]], title
    )
    held = sum(map(len, groups))
    print(f"{len(groups):,} group{'s' * (len(groups) != 1)} of near-duplicates ({held:,} of {len(shown):,} images)")
    if len(shown) < len(files):
        print(f"left out: {len(files) - len(shown):,} images that could not be read when they were answered")
    print(f"written: {path}, {picture}")


def read_embeddings(path: Path) -> tuple[list[str], np.ndarray, list[int]]:
    """Reads a Parquet file of answers.

    Returns:
        The names of all images; the embeddings [n, C] of those that have one; and which those are.

    Raises:
        InspectionError: It cannot be read, or has fewer than two embeddings.
    """
    pyarrow = parquet_library(path)
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowInvalid, IsADirectoryError):
        raise InspectionError(f"{path}: not a readable Parquet file") from None
    if not {"file", "embedding"} <= set(table.column_names):
        raise InspectionError(f"{path}: has no embeddings; write them with predict --embeddings --out {path}")
    column = table["embedding"].combine_chunks()
    numbers = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False)).tolist()
    if len(numbers) < 2:
        raise InspectionError(f"{path}: {len(numbers)} images with an embedding; at least two are compared")
    values = np.asarray(column.drop_null().flatten(), dtype=np.float32).reshape(len(numbers), -1)
    return table["file"].to_pylist(), values, numbers


def pictures_of(files: Sequence[str], numbers: Sequence[int], images: Sequence[str] | None) -> list[Picture]:
    """Finds the images of some rows.

    Args:
        files: Names in all rows.
        numbers: Of the rows whose images are needed.
        images: As in find_and_write.

    Raises:
        InspectionError: They are not there, or are others.
    """
    if images is None:
        places = dict.fromkeys(map(_place_of, files))
        try:
            there = {name_of(picture): picture for place in places for picture in find_pictures([place])}
        except DataError as error:
            raise InspectionError(f"{error}; say with --images where the images are now") from None
        gone = [files[number] for number in numbers if files[number] not in there]
        if gone:
            raise InspectionError(f"{gone[0]}: not there; say with --images where the images are now")
        return [there[files[number]] for number in numbers]
    found = find_pictures(images)
    same = len(found) == len(files) and all(
        Path(name_of(picture)).name == Path(file).name for picture, file in zip(found, files, strict=True)
    )
    if not same:
        raise InspectionError(
            f"--images: {len(found):,} images that are not the {len(files):,} of the file by number, order and names; "
            "name them as for predict"
        )
    return [found[number] for number in numbers]


def _place_of(file: str) -> str:
    """The archive that an image is in, or else the image itself."""
    if not Path(file).exists():
        for folder in Path(file).parents:
            if folder.name.lower().endswith(ARCHIVES) and folder.is_file():
                return str(folder)
    return file


def decoded(pictures: Sequence[Picture], reads: Sequence[Any], number: int) -> Any:
    """Decodes an image.

    Raises:
        InspectionError: It can no longer be read.
    """
    try:
        return image_of(pictures[number], reads[number])
    except (BadImage, OSError) as error:
        raise InspectionError(
            f"{name_of(pictures[number])}: could be read when it was answered, and no longer "
            f"({getattr(error, 'reason', None) or getattr(error, 'strerror', None) or error}); say with --images where "
            "the images are now"
        ) from None


def rows_of(
    files: Sequence[str], groups: list[list[int]], places: np.ndarray, similar: np.ndarray, agree: np.ndarray
) -> Any:
    """Yields the rows of the table, in the order of the images."""
    group_of = {place: number for number, group in enumerate(groups, 1) for place in group}
    for place, others in enumerate(places):
        for k, other in enumerate(others):
            values = round(float(similar[place, k]), 5), round(float(agree[place, k]), 5)
            yield files[place], group_of.get(place), k + 1, files[other], *values


def nearest_pairs(places: np.ndarray, similar: np.ndarray) -> list[list[int]]:
    """Returns images with their nearest others, the most similar pairs first, each pair once."""
    order = np.argsort(-similar[:, 0], kind="stable")
    pairs = dict.fromkeys(tuple(sorted((int(i), int(places[i, 0])))) for i in order)
    return [list(pair) for pair in pairs]
