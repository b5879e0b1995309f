"""What `supertokenvit explain` prints and writes."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..console import say, user_console
from ..data.decode import BadImage, printable
from ..data.listing import find_images
from ..prediction import load, read_picture
from .drawing import draw_grid, overlay
from .explanation import Explanation, ExplanationError, explain, network_of

GRID = 24  # photographs in the picture of all explanations


def explain_and_write(
    images: Sequence[str],
    model: str | None,
    target: str | None = None,
    out: str = "explanations",
    *,
    method: str,
    topk: int = 1,
    windows: bool = False,
    as_json: bool = False,
    **options: Any,
) -> None:
    """Explains answers for image files, and writes an overlay and the raw map of each.

    Args:
        images: Files, and folders of them.
        model: As in prediction.load.
        target: The class to explain; by default the likeliest ones.
        out: Folder for NAME-CLASS.png, NAME-CLASS.npy and explanations.png.
        method: One of methods.METHODS.
        topk: Classes to explain of each image.
        windows: Draw the borders of the windows with the share of each.
        as_json: Print a line of JSON for each explanation.
        **options: Further options of prediction.load.

    Raises:
        ExplanationError: The model cannot be explained, or some image could not be read; the others have been.
    """
    console = user_console()
    files = find_images(images)
    predictor = load(model, **options)
    network_of(predictor)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    shown: list[tuple[Any, list[Explanation]]] = []
    used: set[str] = set()
    bad = 0
    for file in files:
        try:
            image = read_picture(file)
        except (BadImage, OSError) as error:
            bad += 1
            print(f"supertokenvit: {error}", file=sys.stderr)
            continue
        found = explain(predictor, image, target, method=method, topk=topk)
        for explanation in found:
            explanation.file = printable(file)
            path = folder / free_name(f"{file.stem}-{explanation.label}", used)
            overlay(image, explanation, windows=windows).save(path.with_name(f"{path.name}.png"))
            np.save(path.with_name(f"{path.name}.npy"), explanation.map)
            if as_json:
                print(json.dumps(as_row(explanation)))
            else:
                say(console, as_line(explanation))
        if len(shown) < GRID:
            shown.append((image, found))
    if shown:
        draw_grid(folder / "explanations.png", shown)
    if not as_json:
        say(console, f"written: {folder} (overlays, maps as .npy, explanations.png)")
    if bad:
        raise ExplanationError(f"{bad} image{'s' * (bad > 1)} could not be read (named above)")


def free_name(wanted: str, used: set[str]) -> str:
    """Returns a name for files that no other explanation has, without what a file name cannot hold."""
    plain = "".join(letter if letter.isalnum() or letter in "-_ ." else "_" for letter in wanted)
    name, number = plain, 2
    while name in used:
        name, number = f"{plain}-{number}", number + 1
    used.add(name)
    return name


def as_row(explanation: Explanation) -> dict[str, Any]:
    """Returns an explanation for JSON: without the map, with the box of its strongest region."""
    strongest = explanation.strongest()
    return {
        "file": explanation.file,
        "label": explanation.label,
        "probability": explanation.probability,
        "method": explanation.method,
        "strongest": None if strongest is None else asdict(strongest),
        "windows": [[round(float(share), 4) for share in row] for row in explanation.windows],
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
