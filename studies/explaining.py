"""Measures how faithful explanations are, on test images with known truth, and what they cost.

python -m studies.explaining --data FOLDER [--model stt_micro.cifar10] [--count 300]

DATA is CIFAR-10 as folders. The rows go to results/explaining/rows.csv: a row for each method and measure, with 95 %
intervals by bootstrap over the images. `python -m studies.explaining_page` writes docs/explanations.md from them.

Grid pointing game: four test images of different classes side by side in one image of twice the size, each of which the
model answers rightly alone. Each of the four classes is explained; measured is the share of the positive evidence that
lies in the quarter of that class.

Removal (SRG): the patches of a test image are taken away, once the most important first and once the least; measured is
the difference of the areas under the two curves of the probability of the class that was answered. What is taken away
becomes the mean colour, or, with "fill", what the neighbours left by diffusion.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from supertokenvit.data.splits import read_splits
from supertokenvit.explaining.explanation import network_of
from supertokenvit.explaining.methods import METHODS, Maps, chosen
from supertokenvit.machine import environment
from supertokenvit.prediction import load
from supertokenvit.preprocessing import normalize

from .common import RESULTS, commit, now, write_rows

BATCH, STEPS, DRAWS = 20, 16, 2000
Explain = Callable[[Tensor, Tensor], Tensor]


def random_map(images: Tensor, target: Tensor, *, stride: int, generator: torch.Generator) -> Tensor:
    """Makes maps of random values [B, h, w]."""
    return torch.rand(len(images), images.shape[2] // stride, images.shape[3] // stride, generator=generator)


def centre_map(images: Tensor, target: Tensor, *, stride: int) -> Tensor:
    """Makes maps that fall from the middle of the image outwards [B, h, w], whatever is on it."""
    h, w = images.shape[2] // stride, images.shape[3] // stride
    rows, columns = torch.linspace(-1, 1, h)[:, None], torch.linspace(-1, 1, w)[None, :]
    return (-(rows.square() + columns.square())).exp().expand(len(images), h, w)


def contestants(model: Any) -> dict[str, Explain]:
    """Returns every method by name, and two that do not look at the image."""
    stride = model.architecture.stride
    found: dict[str, Explain] = {
        "random": partial(random_map, stride=stride, generator=torch.Generator().manual_seed(0)),
        "centre": partial(centre_map, stride=stride),
    }

    def patches(method: Callable[..., Maps], images: Tensor, target: Tensor) -> Tensor:
        return method(model, images, target).patches

    return found | {name: partial(patches, method) for name, method in METHODS.items()}


def composites(images: Tensor, targets: Tensor, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Puts four images of different classes side by side: [count, 3, 2S, 2S], and their classes [count, 4]."""
    rng = np.random.default_rng(seed)
    by_class = [np.flatnonzero(targets.numpy() == c) for c in range(int(targets.max()) + 1)]
    grids, classes = [], []
    for _ in range(count):
        four = rng.choice(len(by_class), 4, replace=False)
        a, b, c, d = (images[rng.choice(by_class[k])] for k in four)
        grids.append(torch.cat([torch.cat([a, b], 2), torch.cat([c, d], 2)], 1))
        classes.append(four)
    return torch.stack(grids), torch.as_tensor(np.array(classes))


def grid_game(explain: Explain, images: Tensor, classes: Tensor) -> Tensor:
    """Returns for each composite the mean share of positive evidence in the right quarter [count]."""
    shares = []
    for quarter in range(4):
        maps = torch.cat([explain(*part) for part in batches(images, classes[:, quarter])]).clamp(min=0)
        h, w = maps.shape[1] // 2, maps.shape[2] // 2
        right = maps[:, h * (quarter // 2) : h * (quarter // 2 + 1), w * (quarter % 2) : w * (quarter % 2 + 1)]
        total = maps.sum((1, 2))
        shares.append(torch.where(total > 0, right.sum((1, 2)) / total.clamp(min=1e-12), 0.25))
    return torch.stack(shares).mean(0)


def batches(*tensors: Tensor, size: int = BATCH) -> list[tuple[Tensor, ...]]:
    """Cuts tensors into parts of equal length."""
    return list(zip(*(tensor.split(size) for tensor in tensors), strict=True))


def removal(model: Any, images: Tensor, target: Tensor, maps: Tensor, fill: bool, seed: int = 0) -> Tensor:
    """Returns the difference of the two areas under the curves for each image [B]; ties are broken at random."""
    order = (maps + 1e-9 * torch.rand(maps.shape, generator=torch.Generator().manual_seed(seed))).flatten(1).argsort(1)
    areas = []
    for first in (order, order.flip(1)):  # the least important first, then the most
        curve = []
        for step in range(STEPS + 1):
            gone = torch.zeros_like(maps).flatten(1)
            gone.scatter_(1, first[:, : round(step / STEPS * first.shape[1])], 1.0)
            mask = F.interpolate(gone.reshape(maps.shape)[:, None], images.shape[2:], mode="nearest")
            left = diffused(images, mask) if fill else images * (1 - mask)
            with torch.inference_mode():
                curve.append(chosen(model(left).softmax(1), target))
        areas.append(torch.trapezoid(torch.stack(curve), dx=1 / STEPS, dim=0))
    return areas[0] - areas[1]


def diffused(images: Tensor, mask: Tensor, rounds: int = 60) -> Tensor:
    """Fills what a mask takes away with what the neighbours have, by diffusion."""
    kernel = torch.tensor([[0.05, 0.2, 0.05], [0.2, 0.0, 0.2], [0.05, 0.2, 0.05]]).expand(3, 1, 3, 3)
    filled = images * (1 - mask)
    for _ in range(rounds):
        around = F.conv2d(F.pad(filled, [1] * 4, mode="replicate"), kernel, groups=3)
        filled = torch.where(mask > 0, around, images)
    return filled


def interval(values: Tensor, seed: int = 0) -> tuple[float, float, float]:
    """Returns the mean with its 95 % interval by bootstrap over the images."""
    rng, numbers = np.random.default_rng(seed), values.double().numpy()
    means = [numbers[rng.integers(0, len(numbers), len(numbers))].mean() for _ in range(DRAWS)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(numbers.mean()), float(low), float(high)


def seconds_of(call: Callable[[], Any], rounds: int = 7) -> float:
    """Returns the median seconds of a call."""
    call()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def measure(model: Any, images: Tensor, targets: Tensor, count: int) -> list[dict[str, Any]]:
    """Returns a row for each method and measure.

    Args:
        model: In eval mode.
        images: Normalised test images [N, 3, S, S].
        targets: Their classes [N].
        count: Composites, and images from which patches are removed.
    """
    with torch.no_grad():
        right = torch.cat([model(part).argmax(1) for (part,) in batches(images, size=100)]) == targets
    grids, classes = composites(images[right], targets[right], count)
    some = images[:: max(1, len(images) // count)][:count]
    with torch.no_grad():
        answered = model(some).argmax(1)
        forward = seconds_of(lambda: model(some[:BATCH]))
    rows = []
    for name, explain in contestants(model).items():
        maps = torch.cat([explain(*part) for part in batches(some, answered)])
        cost = seconds_of(lambda explain=explain: explain(some[:BATCH], answered[:BATCH]))  # type: ignore[misc]
        results = {"grid game": grid_game(explain, grids, classes)}
        for what, fill in (("SRG", False), ("SRG fill", True)):
            results[what] = torch.cat(
                [removal(model, *part, fill) for part in batches(some, answered, maps)]  # type: ignore[call-arg, arg-type]
            )
        for what, values in results.items():
            mean, low, high = interval(values)
            row = {"method": name, "measure": what, "images": len(values), "mean": mean, "low": low, "high": high}
            rows.append(row | {"forward_passes": cost / forward, "ms": 1000 * cost / BATCH})
            print(f"{name}: {what} {mean:.3f} [{low:.3f}, {high:.3f}], {cost / forward:.1f} forward passes", flush=True)
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Measures all methods and keeps the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="labelled images with a test split")
    parser.add_argument("--model", default="stt_micro.cifar10", help="run folder, or a model of the package")
    parser.add_argument("--count", type=int, default=300, help="composites, and images for removal")
    args = parser.parse_args(argv)
    predictor = load(args.model, device="cpu")
    model, test = network_of(predictor), read_splits(str(args.data)).splits["test"]
    chosen_images = np.random.default_rng(0).permutation(len(test))[: 8 * args.count]
    pixels = torch.stack([predictor.preprocess(test.image(int(i))) for i in chosen_images])
    images = normalize(pixels, predictor.data_config["mean"], predictor.data_config["std"])
    order = [predictor.classes.index(name) for name in test.classes]
    targets = torch.tensor([order[test.targets[i]] for i in chosen_images])
    rows = measure(model, images, targets, args.count)
    here = {"model": args.model, "data": args.data.name, "date": now(), "commit": commit()}
    here["environment"] = json.dumps(environment())
    write_rows(RESULTS / "explaining" / "rows.csv", [row | here for row in rows])


if __name__ == "__main__":
    main()
