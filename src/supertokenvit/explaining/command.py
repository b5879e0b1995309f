"""What `supertokenvit explain` prints and writes."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from supertokenvit_runtime.decode import read_picture

from ..console import say, user_console
from ..data.decode import BadImage, printable
from ..data.listing import find_images
from ..model.network import SuperTokenTransformer
from ..prediction import Predictor, load
from ..preprocessing import normalize
from ..tasks.drawing import Panel, draw_panels, panel
from .drawing import overlay, paint_talk
from .explanation import Explanation, ExplanationError, explain, method_of, network_of
from .talk import listened

GRID = 24  # photographs in the picture of all explanations
AT_ONCE = 8  # photographs in memory


def explain_and_write(
    images: Sequence[str],
    model: str | None,
    target: str | None = None,
    out: str = "explanations",
    *,
    method: str | None = None,
    topk: int = 1,
    windows: bool = False,
    talk: bool = False,
    as_json: bool = False,
    **options: Any,
) -> None:
    """Explains answers for image files, and writes an overlay and the raw map of each.

    Args:
        images: Files, and folders of them.
        model: As in prediction.load.
        target: The class to explain; by default the likeliest ones.
        out: Folder for NAME-CLASS.png, NAME-CLASS.npy and explanations.png.
        method: As in explanation.explain.
        topk: Classes to explain of each image.
        windows: Draw the borders of the windows with the share of each.
        talk: Draw which windows the most important one listened to, as NAME-CLASS-talk.png.
        as_json: Print a line of JSON for each explanation.
        **options: Further options of prediction.load.

    Raises:
        ExplanationError: The model cannot be explained, or some image could not be read; the others have been.
    """
    console = user_console()
    files = find_images(images)
    predictor = load(model, **options)
    network = network_of(predictor)
    method = method_of(predictor, network, method)
    if (windows or talk) and not isinstance(network, SuperTokenTransformer):
        raise ExplanationError(f"{predictor.name}: has no windows to show")

    def told(explanation: Explanation, heard: Any) -> None:
        print(json.dumps(as_row(explanation, heard))) if as_json else say(console, as_line(explanation))

    bad = explain_files(
        predictor, files, Folder(Path(out), windows=windows), target, method=method, topk=topk, talk=talk, told=told
    )
    if not as_json:
        say(console, f"written: {out} (overlays, maps as .npy, explanations.png)")
    if bad:
        raise ExplanationError(f"{bad} image{'s' * (bad > 1)} could not be read (named above)")


def explain_files(
    predictor: Predictor,
    files: Sequence[Path],
    pictures: "Folder",
    target: str | None = None,
    *,
    method: str | None = None,
    topk: int = 1,
    talk: bool = False,
    told: Callable[[Explanation, Any], None] | None = None,
) -> int:
    """Explains files into a folder of pictures.

    Args:
        predictor: From prediction.load.
        files: Images.
        pictures: Where to.
        target: As in explanation.explain, and so are method and topk.
        method: Of the explanation.
        topk: Classes of each image.
        talk: Draw which windows the most important one listened to.
        told: Hears of each explanation, and of what its windows listened to.

    Returns:
        The number of files that could not be read; each is named on standard error.
    """
    bad: list[str] = []
    for paths, opened in readable(files, bad):
        found = explain(predictor, opened, target, method=method, topk=topk)
        heard = heard_by(predictor, opened) if talk else [None] * len(opened)
        each = len(found) // len(opened)
        for number, (path, image) in enumerate(zip(paths, opened, strict=True)):
            explained = found[each * number : each * (number + 1)]
            for explanation in explained:
                explanation.file = printable(path)
                if told is not None:
                    told(explanation, heard[number])
            pictures.keep(path.stem, image, explained, heard[number])
    pictures.finish()
    return len(bad)


def readable(files: Sequence[Path], bad: list[str]) -> Iterator[tuple[list[Path], list[Image.Image]]]:
    """Opens files, some at a time; those that cannot be read are named on standard error and added to `bad`."""
    for start in range(0, len(files), AT_ONCE):
        paths, opened = [], []
        for file in files[start : start + AT_ONCE]:
            try:
                opened.append(read_picture(file))
                paths.append(file)
            except (BadImage, OSError) as error:
                bad.append(str(error))
                print(f"supertokenvit: {error}", file=sys.stderr)
        if opened:
            yield paths, opened


def heard_by(predictor: Predictor, images: Sequence[Image.Image]) -> list[Any]:
    """Returns for each image how much each of its windows listened to each other one (see talk.listened)."""
    model: Any = network_of(predictor)
    pixels = torch.stack([predictor.preprocess(image) for image in images])
    x = normalize(pixels, predictor.data_config["mean"], predictor.data_config["std"])
    return list(listened(model, x.to(next(model.parameters()).device)).cpu().numpy())


class Folder:
    """A folder of overlays, raw maps and one picture of the first photographs.

    Args:
        path: Of the folder; it is made.
        windows: Draw the borders of the windows with the share of each.
    """

    def __init__(self, path: Path, *, windows: bool = False) -> None:
        self.path, self.windows = path, windows
        self.shown: list[list[Panel]] = []
        self.used: set[str] = set()
        path.mkdir(parents=True, exist_ok=True)

    def keep(self, name: str, image: Image.Image, found: list[Explanation], heard: Any = None) -> None:
        """Writes what was found of one photograph."""
        panels = [panel(image, name[-28:])]
        for explanation in found:
            path = self.path / free_name(f"{name}-{explanation.label}", self.used)
            painted = overlay(image, explanation, windows=self.windows)
            painted.save(path.with_name(f"{path.name}.png"))
            panels.append(panel(painted, f"{explanation.label} {100 * explanation.probability:.0f} %"))
            np.save(path.with_name(f"{path.name}.npy"), explanation.map)
            if heard is not None:
                paint_talk(image, explanation, heard).save(path.with_name(f"{path.name}-talk.png"))
        if len(self.shown) < GRID:
            self.shown.append(panels)

    def finish(self) -> None:
        """Draws the picture of the first photographs, if there are any."""
        if self.shown:
            draw_panels(self.path / "explanations.png", self.shown)


def free_name(wanted: str, used: set[str]) -> str:
    """Returns a name for files that no other explanation has, without what a file name cannot hold."""
    plain = "".join(letter if letter.isalnum() or letter in "-_ ." else "_" for letter in wanted)
    name, number = plain, 2
    while name in used:
        name, number = f"{plain}-{number}", number + 1
    used.add(name)
    return name


def as_row(explanation: Explanation, heard: Any = None) -> dict[str, Any]:
    """Returns an explanation for JSON: without the map, with the box of its strongest region."""
    strongest = explanation.strongest()
    return ({} if heard is None else {"talk": heard.round(4).tolist()}) | {
        "file": explanation.file,
        "label": explanation.label,
        "probability": explanation.probability,
        "method": explanation.method,
        "strongest": None if strongest is None else asdict(strongest),
        "windows": None if explanation.windows is None else explanation.windows.round(4).tolist(),
        "positive": explanation.positive,
        "negative": explanation.negative,
    }


def as_line(explanation: Explanation) -> str:
    """Writes an explanation as one line: file, class, and where most of it is."""
    strongest = explanation.strongest()
    where = "nothing spoke for it"
    if strongest is not None:
        box = [round(edge) for edge in (strongest.left, strongest.top, strongest.right, strongest.bottom)]
        where = f"most of all x {box[0]} to {box[2]}, y {box[1]} to {box[3]}"
    return f"{explanation.file}  {explanation.label} {100 * explanation.probability:.1f} %  {where}"
