"""Decodes a whole data set and names what is wrong with it, before training finds it (`supertokenvit check-data`)."""

import hashlib
import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from ..console import is_watched, say, user_console
from .box_checking import named_faults, odd_boxes, print_boxes
from .decode import BadImage, in_threads
from .sources import DataError, Source
from .splits import open_splits

NARROW = 10  # times that an image is longer than it is wide


@dataclass
class Finding:
    """What decoding an image showed.

    Args:
        digest: A digest of its pixels, if it could be decoded.
        size: Its width and height, if it could be decoded.
        error: A line that says what is wrong with it, or None.
        unreadable: Whether its file could not even be read.
    """

    digest: str = ""
    size: tuple[int, int] | None = None
    error: str | None = None
    unreadable: bool = False


@dataclass
class Report:
    """What is wrong with a data set.

    Args:
        images: The number of images in each split.
        damaged: A line for each image that cannot be used.
        duplicates: A line for each image that stands in two splits, or in two classes.
        strange: A line for each further remark.
        fatal: A line for each reason why training would fail.
    """

    images: dict[str, int] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    fatal: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """All lines of the report."""
        return self.damaged + self.duplicates + self.strange + self.fatal


def check(data: str | os.PathLike, *, workers: int | None = None, console: Console | None = None) -> Report:
    """Decodes every image of a data set and reports what is wrong with it.

    Args:
        data: As in training.
        workers: Decoders at once; None for one for each core.
        console: Where the report is printed too; None for nowhere.

    Example:
        >>> import supertokenvit
        >>> report = supertokenvit.check("digits")
        >>> report.images["test"], report.fatal
        (359, [])
    """
    console, report = console or Console(quiet=True), Report()
    try:
        splits = open_splits(os.fspath(data))
    except (DataError, OSError) as error:
        report.fatal.append(str(error))
        return report
    named = {"train": splits.train, "val": splits.val, "test": splits.test}
    sources = {name: source for name, source in named.items() if source is not None}
    say(console, f"validation: {splits.rule}")
    findings = decode_all(sources, workers or os.cpu_count() or 1, console)
    report.images = {name: len(source) for name, source in sources.items()}
    for name, source in sources.items():
        bad = [f.error for f in findings[name] if f.error]
        report.damaged += bad
        unreadable = [f.error for f in findings[name] if f.unreadable]
        if unreadable:
            report.fatal.append(f"{len(unreadable)} files of the {name} split cannot be read: {unreadable[0]}")
        if len(bad) == len(source):
            report.fatal.append(f"no image of the {name} split can be decoded")
        if name == "val" and bad:
            report.strange.append(f"{len(bad)} damaged validation images: training stops unless --skip_damaged true")
    report.fatal += too_few_classes(splits.train, findings["train"])
    report.duplicates = find_duplicates(sources, findings)
    report.strange += odd_classes(sources, splits.val_is_own)
    if splits.train.task == "detection":
        report.strange += named_faults(splits.train, splits.left_out)
        for name, source in sources.items():
            report.strange += odd_boxes(source, [finding.size for finding in findings[name]])
    else:
        report.strange += [f"left out: {line}" for line in splits.left_out]
    if splits.val is None:
        report.fatal.append("every class has a single image, so that none is left for validation")
    for name, source in sources.items():
        report.strange += odd_shapes(source, findings[name])
    print_report(report, sources, findings, console)
    return report


def check_and_print(data: str, workers: int | None = None) -> None:
    """Checks a data set and prints the report.

    Raises:
        DataError: Training on it would fail.
    """
    report = check(data, workers=workers, console=user_console())
    if report.fatal:
        raise DataError(f"training on this would fail: {'; '.join(report.fatal)}")


def decode_all(sources: dict[str, Source], workers: int, console: Console) -> dict[str, list[Finding]]:
    """Decodes all images, and returns what that showed of each image of each split."""

    def look(source: Source, i: int) -> Finding:
        try:
            image = source.image(i)
            return Finding(hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest(), image.size)
        except BadImage as error:
            return Finding(error=str(error))
        except OSError as error:
            return Finding(error=f"{source.name(i)}: {error.strerror or error}", unreadable=True)

    findings: dict[str, list[Finding]] = {}
    with Progress(console=console, transient=True, disable=not is_watched(console)) as progress:
        task = progress.add_task("Decoding", total=sum(map(len, sources.values())))
        for name, source in sources.items():
            findings[name] = []
            for finding in in_threads(partial(look, source), len(source), workers):
                findings[name].append(finding)
                progress.advance(task)
    return findings


def find_duplicates(sources: dict[str, Source], findings: dict[str, list[Finding]]) -> list[str]:
    """Finds images with the same pixels in two splits, or with different labels in one."""
    places: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for name, found in findings.items():
        for i, finding in enumerate(found):
            if finding.digest:
                places[finding.digest].append((name, i))
    lines = []
    for same in places.values():
        first = same[0]
        for other in same[1:]:
            names = [sources[split].name(i) for split, i in (first, other)]
            labels = [np.atleast_1d(sources[split].targets[i]).tolist() for split, i in (first, other)]
            if first[0] != other[0]:
                twist = "" if labels[0] == labels[1] else ", with different labels"
                lines.append(f"the same picture in {first[0]} and {other[0]}{twist}: {names[0]} = {names[1]}")
            elif labels[0] != labels[1]:
                lines.append(f"the same picture with two labels: {names[0]} = {names[1]}")
    return lines


def counts(source: Source) -> np.ndarray:
    """Counts the images of each class."""
    if source.multi_label:
        return source.targets.sum(0).astype(int)
    return np.bincount(source.targets, minlength=len(source.classes))


def too_few_classes(train: Source, findings: list[Finding]) -> list[str]:
    """Returns a line if the training images that can be decoded are all of one class."""
    if train.multi_label:
        return []
    usable = {int(target) for target, finding in zip(train.targets, findings, strict=True) if finding.size}
    if len(usable) != 1:
        return []
    return [f"only training images of one class can be decoded: {train.classes[usable.pop()]}"]


def odd_classes(sources: dict[str, Source], val_is_own: bool) -> list[str]:
    """Finds classes that one split lacks, or that are very rare."""
    lines = []
    for name, source in sources.items():
        lacking = [c for c, n in zip(source.classes, counts(source), strict=True) if n == 0]
        if lacking and (name != "val" or val_is_own):
            lines.append(f"the {name} split has no image of: {', '.join(lacking)}")
    rare = [c for c, n in zip(sources["train"].classes, counts(sources["train"]), strict=True) if 0 < n < 5]
    return lines + ([f"fewer than five training images of: {', '.join(rare)}"] if rare else [])


def odd_shapes(source: Source, findings: list[Finding]) -> list[str]:
    """Finds images that are so narrow that a square of them shows next to nothing."""
    return [
        f"{source.name(i)}: {f.size[0]} x {f.size[1]} pixels: a square of it shows little"
        for i, f in enumerate(findings)
        if f.size and max(f.size) > NARROW * min(f.size)
    ]


def print_report(
    report: Report, sources: dict[str, Source], findings: dict[str, list[Finding]], console: Console
) -> None:
    """Prints tables of counts and sizes, then the problems."""
    classes = sources["train"].classes
    table = Table("class", *sources, title="images")
    numbers = {name: counts(source) for name, source in sources.items()}
    shown = range(len(classes)) if len(classes) <= 40 else [*range(20), *range(len(classes) - 20, len(classes))]
    for k in shown:
        if len(classes) > 40 and k == len(classes) - 20:
            table.add_row(f"... {len(classes) - 40:,} more", *("..." for _ in sources))
        table.add_row(escape(classes[k]), *(str(numbers[name][k]) for name in sources))
    table.add_row("all", *(f"{len(source):,}" for source in sources.values()), style="bold")
    console.print(table)
    if sources["train"].task == "detection":
        print_boxes(sources, console)
    sides = [min(f.size) for found in findings.values() for f in found if f.size]
    buckets = Counter(next((edge for edge in (32, 64, 128, 256, 512, 1024, 2048) if side <= edge), 0) for side in sides)
    table = Table("shorter side", "images", title="sizes")
    for edge, number in sorted(buckets.items(), key=lambda item: item[0] or 10**9):
        table.add_row(f"up to {edge} px" if edge else "over 2048 px", f"{number:,}")
    console.print(table)
    for line in report.problems:
        say(console, line)
    total = sum(report.images.values())
    console.print(
        f"{total:,} images: {len(report.damaged)} damaged, {len(report.duplicates)} duplicates, "
        f"{len(report.strange)} further remarks",
        highlight=False,
    )
