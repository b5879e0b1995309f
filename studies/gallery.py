"""Makes the gallery: photographs with answers, explanations, masks and boxes, failures too.

python -m studies.gallery --photos FOLDER [--flowers RUN DATA] [--masks RUN DATA] [--boxes RUN DATA]

FOLDER holds the photographs that PHOTOS names. RUN is a trained model and DATA its labelled images; what is left out
has no section. The pictures go to docs/figures/gallery, the page is docs/gallery.md.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from supertokenvit.dense.box_pictures import paint_photograph
from supertokenvit.dense.masks import overlay as overlay_mask
from supertokenvit.evaluation import open_labelled
from supertokenvit.explaining.command import heard_by
from supertokenvit.explaining.drawing import overlay, paint_talk
from supertokenvit.explaining.explanation import explain
from supertokenvit.prediction import load
from supertokenvit.tasks.drawing import Panel, draw_panels, panel

from . import common

PHOTOS = {
    "plane.jpg": "airplane",
    "taxis.jpg": "automobile",
    "tabby_cat.jpg": "cat",
    "chelsea_cat.jpg": "cat",
    "beagle.jpg": "dog",
    "dog_and_woman.jpg": "dog",
    "jockey.jpg": "horse",
    "pizza.jpg": "",
    "rocket.jpg": "",
}
"""Photographs by name, each with the class of CIFAR-10 that is on it, or nothing."""

INTRO = """
What models of this project answer, and why. Every picture is made by `python -m studies.gallery`. Nothing was picked
because it looks good: labelled images are taken at even steps from the best answer to the worst.

In explanations orange spoke for the named class. The frames are the windows of the network, with the share of each in
the whole evidence.
"""


def photographs(folder: Path) -> tuple[str, list[list[Panel]]]:
    """Answers of the model that comes with the package, for ordinary photographs."""
    predictor = load("stt_micro.cifar10", device="cpu")
    rows = []
    for name, truth in PHOTOS.items():
        image = Image.open(folder / name).convert("RGB")
        found = explain(predictor, image, topk=2)
        mark = "right" if found[0].label == truth else "wrong" if truth else "none of its classes"
        row = [panel(image, name.removesuffix(".jpg"))]
        for number, one in enumerate(found):
            title = f"{one.label} {100 * one.probability:.0f} %" + (f" ({mark})" if not number else "")
            row.append(panel(overlay(image, one, windows=True), title))
        row.append(panel(paint_talk(image, found[0], heard_by(predictor, [image])[0]), "listened to"))
        rows.append(row)
    known = ", ".join(predictor.classes)
    text = (
        "The model that comes with the package was trained on pictures of 32 x 32 pixels and sees each photograph at "
        f"that size. It knows {known}, and must answer with one of them whatever is shown. Shown are its two likeliest "
        "classes with what spoke for each, and which windows the most important window (orange frame) listened to."
    )
    return text, rows


def labels(run: str, data: str) -> tuple[str, list[list[Panel]]]:
    """Answers for validation images, from the surest right one to the surest wrong one."""
    predictor = load(run, device="cpu")
    source, split, _ = open_labelled(run, predictor.card, data, None)
    names = [source.classes[int(source.targets[i])] for i in range(len(source))]
    said = predictor([source.image(i) for i in range(len(source))], topk=len(predictor.classes))
    sure = [dict(zip(answer.labels, answer.probabilities, strict=True)) for answer in said]
    order = sorted(range(len(source)), key=lambda i: -sure[i][names[i]])
    rows = []
    for i in at_even_steps(order, 6):
        image, label = source.image(i), said[i].labels[0]
        wanted = list(dict.fromkeys([label, names[i]]))
        row = [panel(image, names[i])]
        for found in explain(predictor, [image] * len(wanted), wanted):
            mark = "right" if found.label == names[i] == label else "wrong" if found.label == label else "the truth"
            row.append(panel(overlay(image, found), f"{found.label} {100 * found.probability:.0f} % ({mark})"))
        rows.append(row)
    right = sum(answer.labels[0] == name for answer, name in zip(said, names, strict=True))
    text = (
        f"A model for {', '.join(predictor.classes)}, {right} of {len(source)} images of the {split} split right. Where"
        " the answer is wrong, what spoke for the truth stands beside it."
    )
    return text, rows


def masks(run: str, data: str) -> tuple[str, list[list[Panel]]]:
    """A class for each pixel: photograph, truth, answer."""
    predictor = load(run, device="cpu")
    source, split, _ = open_labelled(run, predictor.card, data, None)
    K = len(predictor.classes)

    def right(i: int) -> float:
        truth, answer = source.target(i), predictor(source.image(i))[0].mask
        return float((truth == answer)[truth < K].mean())

    def row(i: int, share: float) -> list[Panel]:
        image = source.image(i)
        truth = Image.fromarray(overlay_mask(np.asarray(image), source.target(i), K))
        answer = predictor(image)[0].pictures(image)["-overlay"]
        return [panel(image, "photograph"), panel(truth, "truth"), panel(answer, f"answer: {100 * share:.0f} % right")]

    text = f"A class for each pixel ({', '.join(predictor.classes)}), images of the {split} split."
    return text, ranked_rows(len(source), right, row)


def boxes(run: str, data: str) -> tuple[str, list[list[Panel]]]:
    """Boxes around things: truth and answer."""
    predictor = load(run, device="cpu")
    source, split, _ = open_labelled(run, predictor.card, data, None)

    def right(i: int) -> float:
        return -abs(len(source.target(i).labels) - len(predictor(source.image(i))[0].boxes))

    def row(i: int, gap: float) -> list[Panel]:
        image, truth = source.image(i), source.target(i)
        answer = predictor(image)[0]
        painted = answer.pictures(image)[""]
        shown = paint_photograph(image, truth, predictor.classes)
        titles = f"truth: {len(truth.labels)} boxes", f"answer: {len(answer.boxes)} boxes"
        return [panel(shown, titles[0]), panel(painted, titles[1])]

    text = (
        f"Boxes around {', '.join(predictor.classes)}, images of the {split} split, by the number of boxes that is off."
    )
    return text, ranked_rows(len(source), right, row)


def at_even_steps(order: Sequence[int], count: int) -> list[int]:
    """Returns some of an order, the first and the last among them."""
    return [order[round(step * (len(order) - 1) / (count - 1))] for step in range(count)]


def ranked_rows(
    count: int, right: Callable[[int], float], row: Callable[[int, float], list[Panel]]
) -> list[list[Panel]]:
    """Makes rows of four images, from the best answer to the worst."""
    scores = [right(i) for i in range(count)]
    order = sorted(range(count), key=lambda i: -scores[i])
    return [row(i, scores[i]) for i in at_even_steps(order, 4)]


def main(argv: Sequence[str] | None = None) -> None:
    """Makes pictures and page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of photographs")
    for name in ("flowers", "masks", "boxes"):
        parser.add_argument(f"--{name}", nargs=2, metavar=("RUN", "DATA"), help=f"trained model and images: {name}")
    args = parser.parse_args(argv)
    made: dict[str, tuple[str, Callable[[], Any]]] = {
        "photographs": ("Photographs", lambda: photographs(args.photos)),
        "flowers": ("Flowers", lambda: labels(*args.flowers)),
        "masks": ("Streets, pixel by pixel", lambda: masks(*args.masks)),
        "boxes": ("Blood cells", lambda: boxes(*args.boxes)),
    }
    folder = common.DOCS / "figures" / "gallery"
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["# Gallery", "", INTRO.strip(), ""]
    for name, (title, make) in made.items():
        if name == "photographs" or getattr(args, name):
            text, rows = make()
            draw_panels(folder / f"{name}.jpg", rows)
            lines += [f"## {title}", "", text, "", f"![{title}](figures/gallery/{name}.jpg)", ""]
    (common.DOCS / "gallery.md").write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
