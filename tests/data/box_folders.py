"""Writes small detection data sets in the ways in which people keep them."""

import json

import numpy as np
from PIL import Image

COLOURS = {"red": (220, 40, 40), "blue": (40, 60, 220)}


def picture(boxes, size=(64, 48)):
    """A grey image with a rectangle in the colour of each box's class."""
    pixels = np.full((size[1], size[0], 3), 128, dtype=np.uint8)
    for name, (left, top, right, bottom) in boxes:
        pixels[top:bottom, left:right] = COLOURS[name]
    return Image.fromarray(pixels)


def some_boxes(count, seed=0, size=(64, 48)):
    """Boxes of `count` images: one or two each, of both classes."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        boxes = []
        for k in range(1 + i % 2):
            w, h = rng.integers(14, 24, 2)
            left, top = int(rng.integers(0, size[0] - w)), int(rng.integers(0, size[1] - h))
            boxes.append((["red", "blue"][(i + k) % 2], (left, top, left + int(w), top + int(h))))
        found.append(boxes)
    return found


def thing(name, box, more=""):
    edges = "".join(f"<{edge}>{value}</{edge}>" for edge, value in zip(("xmin", "ymin", "xmax", "ymax"), box))  # noqa: B905
    return f"<object><name>{name}</name>{more}<bndbox>{edges}</bndbox></object>"


def xml(boxes, size=(64, 48), more=""):
    body = "".join(thing(name, box) for name, box in boxes) + more
    return f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{body}</annotation>"


def write_voc(root, splits):
    """JPEGImages, Annotations and ImageSets/Main; no lists if all images are in the split ""."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    number = 0
    for split, images in splits.items():
        names = []
        for boxes in images:
            names.append(f"{number:03}")
            picture(boxes).save(root / "JPEGImages" / f"{number:03}.png")
            (root / "Annotations" / f"{number:03}.xml").write_text(xml(boxes))
            number += 1
        if split:
            (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
    return str(root)


def coco(images, first=0):
    """The content of a COCO file, with ids that are no indices."""
    ids = {"red": 7, "blue": 3}
    boxes = [(i, box) for i, found in enumerate(images) for box in found]
    return {
        "images": [
            {"id": 100 + i, "file_name": f"{first + i:03}.png", "width": 64, "height": 48} for i in range(len(images))
        ],
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
        "annotations": [
            {"id": n, "image_id": 100 + i, "category_id": ids[name], "iscrowd": 0, "area": (r - x) * (b - y),
             "bbox": [x, y, r - x, b - y]}
            for n, (i, (name, (x, y, r, b))) in enumerate(boxes)
        ],
    }  # fmt: skip


def write_coco(root, splits, layout="folders"):
    """As "folders" (train/, annotations/), as "roboflow" (a JSON file in each split), or "flat" (no splits)."""
    number = 0
    for split, images in splits.items():
        folder = {"folders": split, "roboflow": split, "flat": "images"}[layout]
        table = {"folders": f"annotations/instances_{split}.json", "roboflow": f"{split}/_annotations.coco.json",
                 "flat": "annotations.json"}[layout]  # fmt: skip
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / table).parent.mkdir(parents=True, exist_ok=True)
        (root / table).write_text(json.dumps(coco(images, number)))
        for boxes in images:
            picture(boxes).save(root / folder / f"{number:03}.png")
            number += 1
    return str(root)
