"""Makes sources of data sets that come through other libraries: Hugging Face, torchvision, scikit-learn."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .decode import BadImage, read_file, to_rgb
from .sources import DataError, Source, Stored, class_name, split_of


class HfSource(Source):
    """A split of a Hugging Face dataset.

    Args:
        table: The split, a `datasets.Dataset`.
        what: What messages call the split.

    Raises:
        DataError: There is no column of images or of labels, no row, or a row without a label.
    """

    def __init__(self, table: Any, what: str) -> None:
        import datasets

        features = table.features
        image = next((n for n, f in features.items() if isinstance(f, datasets.Image)), None)
        label = next((n for n in ("label", "labels", "fine_label", "class", "target") if n in features), None)
        if image is None or label is None:
            raise DataError(f"{what}: no column of images and labels; there are {', '.join(features)}")
        self.table, self.what, self.column = table.cast_column(image, datasets.Image(decode=False)), what, image
        self.rows = self.table.with_format("arrow")
        self.classes, self.targets = _labels(features[label], list(table[label]), f"{what}: column {label}")

    def name(self, i: int) -> str:
        # A row in Arrow's format is a view, so the image in it is not read.
        cell = self.rows[i].column(self.column)[0]
        return (cell["path"].as_py() if cell.is_valid else None) or f"{self.what}/{i}"

    def read(self, i: int) -> bytes:
        cell = self.table[i][self.column]
        if cell is None or (cell["bytes"] is None and not cell["path"]):
            raise BadImage(self.name(i), "the row has no image")
        return cell["bytes"] if cell["bytes"] is not None else read_file(cell["path"])


def _labels(kind: Any, values: list[Any], what: str) -> tuple[list[str], np.ndarray]:
    """Returns the classes of a column of labels, and the targets of its rows.

    Raises:
        DataError: A row has no label, or one that is neither a word nor a whole number.
    """
    if not values:
        raise DataError(f"{what}: no images in it")
    names = getattr(kind, "names", None) or getattr(getattr(kind, "feature", None), "names", None)
    several = isinstance(values[0], (list, tuple))
    rows = [value if several and value is not None else [value] for value in values]
    for i, row in enumerate(rows):
        wrong = next((v for v in row if isinstance(v, bool) or not isinstance(v, (str, int, float))), 0)
        if wrong is None:
            raise DataError(f"{what}: row {i} has no label")
        if wrong != 0 or any(isinstance(v, float) and not v.is_integer() for v in row):
            odd = type(wrong if wrong != 0 else row[0]).__name__
            raise DataError(f"{what}: row {i} has a {odd} for a label: expected a word or a whole number")
    words = [[v if names else class_name(str(int(v) if isinstance(v, float) else v)) for v in row] for row in rows]
    classes = [class_name(name) for name in names] if names else sorted({v for row in words for v in row})
    number = {name: k for k, name in enumerate(classes)}
    numbers = [[int(v) if names else number[v] for v in row] for row in words]
    if not several:
        return classes, np.array([row[0] for row in numbers], dtype=np.int64)
    targets = np.zeros((len(rows), len(classes)), dtype=np.float32)
    for i, row in enumerate(numbers):
        targets[i, row] = 1
    return classes, targets


def open_hf(name: str) -> Stored:
    """Opens a Hugging Face dataset.

    Args:
        name: A folder from save_to_disk, or what datasets.load_dataset takes.

    Raises:
        DataError: The library is missing or cannot load the dataset, HfSource finds no labelled images in it, or two
            of its parts are the same split.
    """
    try:
        import datasets
    except ImportError:
        raise DataError(f"hfds/{name}: needs the extra hf: pip install 'supertokenvit[hf]'") from None
    try:
        saved = any((Path(name) / file).exists() for file in ("dataset_dict.json", "state.json"))
        found = datasets.load_from_disk(name) if saved else datasets.load_dataset(name)
    except Exception as error:
        raise DataError(f"hfds/{name}: {str(error).splitlines()[0]}") from error
    tables = found if isinstance(found, dict) else {"train": found}
    stored, parts = Stored({}), dict[str, str]()
    for part, table in tables.items():
        split = split_of(part)
        if split is None:
            stored.left_out.append(f"the part {part} of {len(table):,} rows, whose name says no split")
            continue
        if split in parts:
            raise DataError(f"hfds/{name}: two parts are the {split} split: {parts[split]} and {part}")
        parts[split] = part
        stored.splits[split] = HfSource(table, f"hfds/{name}/{part}")
    return stored


class Arrays(Source):
    """Images that a function gives by their index.

    Args:
        get: Gives the image of an index.
        classes: The names of the classes.
        targets: The class number of each image.
        what: The name of the data set; the names of the images begin with it.
    """

    def __init__(self, get: Callable[[int], Image.Image], classes: list[str], targets: np.ndarray, what: str) -> None:
        self.get, self.classes, self.targets, self.what = get, classes, targets, what

    def name(self, i: int) -> str:
        return f"{self.what}/{i}"

    def read(self, i: int) -> bytes:
        file = io.BytesIO()
        self.get(i).save(file, "PNG")
        return file.getvalue()

    def image(self, i: int, enough: int | None = None) -> Image.Image:
        return to_rgb(self.get(i))


def open_torchvision(name: str) -> Stored:
    """Opens one of torchvision's data sets, and downloads it if it is not there.

    Args:
        name: timm's name for it, such as cifar10; `cifar10:FOLDER` says where it lies.

    Raises:
        DataError: It is not known or cannot be downloaded.
    """
    from timm.data import create_dataset

    name, _, root = name.partition(":")
    where = root or str(Path.home() / ".cache" / "supertokenvit" / name)
    splits: dict[str, Source] = {}

    def create(split: str, download: bool) -> Any:
        return create_dataset(f"torch/{name}", root=where, split=split, download=download)

    # torchvision's sets have train and test; timm calls the latter validation.
    for split, called in (("train", "train"), ("test", "validation")):
        try:
            try:
                data = create(called, download=False)
            except RuntimeError:  # torchvision raises it when the data is not there, or not all of it
                data = create(called, download=True)
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"torch/{name}: {reason} (looked in {where})") from error
        classes = [str(c) for c in getattr(data, "classes", [])]
        numbers = data.targets if hasattr(data, "targets") else [t for _, t in data]  # MNIST's are a tensor
        targets = np.array([int(t) for t in numbers], dtype=np.int64)
        classes = classes or [str(k) for k in range(targets.max() + 1)]
        splits[split] = Arrays(PairImage(data), classes, targets, f"torch/{name}/{called}")
    return Stored(splits)


class PairImage:
    """Gives the image of each (image, label) pair of a data set.

    Args:
        data: The data set.
    """

    def __init__(self, data: Any) -> None:
        self.data = data

    def __call__(self, i: int) -> Image.Image:
        return self.data[i][0]


class DigitImage:
    """Gives each image of scikit-learn's digits.

    Args:
        images: [N, 8, 8] with values from 0 to 16.
    """

    def __init__(self, images: np.ndarray) -> None:
        self.images = (images * (255 / 16)).round().astype(np.uint8)

    def __call__(self, i: int) -> Image.Image:
        return Image.fromarray(self.images[i])


def open_digits() -> Source:
    """Opens scikit-learn's 1,797 handwritten digits of 8 x 8 pixels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return Arrays(DigitImage(data.images), [str(k) for k in range(10)], data.target.astype(np.int64), "digits")
