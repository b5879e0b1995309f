"""Measures how faithful explanations are, on test images with known truth, and what they cost.

python -m studies.explaining --data FOLDER [--model stt_micro.cifar10] [--count 500] [--methods composed gradcam ...]

DATA are labelled images in folders; the test images, or else those for validation, are used. The rows go to
results/explaining/rows.csv: a row for each method and measure, with 95 % intervals by bootstrap over the images. Rows
of the same model, data, method and measure are replaced. With --costs the cost of each method is measured instead.
`python -m studies.explaining_page` writes docs/explanations.md from the rows.

Grid game: four test images of different classes side by side in one image of twice the size, each of which the model
answers rightly alone. Each of the four classes is explained; measured is the share of the positive evidence that lies
in the quarter of that class.

One window: a test image made as small as one window, on the blurred rest of another one, of those that are answered
rightly; measured is the share of the positive evidence in that window.

Removal (SRG): the patches of a test image are taken away, once the most important first and once the least; measured is
the difference of the areas under the two curves of the probability of the class that was answered. What is taken away
becomes the mean colour; with "fill" what the neighbours left by diffusion; with "ROAD" a noisy linear imputation.

SaCo: the patches in ten groups by their value; whether groups that are said to matter more do so (see salience).

Randomised: the rank correlation of a map with that of the same network with random weights; the nearer to 0 the better.
"""

import argparse
import copy
import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from supertokenvit.data.splits import read_splits
from supertokenvit.explaining.explanation import network_of
from supertokenvit.explaining.methods import chosen
from supertokenvit.machine import environment
from supertokenvit.prediction import load
from supertokenvit.preprocessing import normalize

from .common import RESULTS, commit, now, read_rows, write_rows
from .explaining_rivals import Explain, contestants

BATCH, STEPS, DRAWS = 20, 16, 2000
KEY = ("model", "data", "method", "measure")


def composites(images: Tensor, targets: Tensor, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Puts four images of different classes side by side: [count, 3, 2S, 2S], and their classes [count, 4]."""
    rng = np.random.default_rng(seed)
    present = np.unique(targets.numpy())
    by_class = [np.flatnonzero(targets.numpy() == c) for c in present]
    grids, classes = [], []
    for _ in range(count):
        four = rng.choice(len(by_class), 4, replace=False)
        a, b, c, d = (images[rng.choice(by_class[k])] for k in four)
        grids.append(torch.cat([torch.cat([a, b], 2), torch.cat([c, d], 2)], 1))
        classes.append(present[four])
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


def one_window(images: Tensor, side: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Puts each image, as small as one window, on the blurred pixels of another one.

    Args:
        images: [N, 3, S, S]
        side: Of a window, in pixels.
        seed: Of the places.

    Returns:
        Images [N, 3, S, S] and the row and column of the window [N, 2].
    """
    rng = np.random.default_rng(seed)
    S, gaps = images.shape[2], images.shape[2] // side
    small = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
    other = images.roll(1, 0)
    canvas = F.interpolate(F.interpolate(other, (2, 2), mode="area"), (S, S), mode="bilinear")
    places = rng.integers(0, gaps, (len(images), 2))
    for image, tiny, (row, column) in zip(canvas, small, places, strict=True):
        image[:, side * row : side * (row + 1), side * column : side * (column + 1)] = tiny
    return canvas, torch.from_numpy(places)


def share_inside(maps: Tensor, places: Tensor, side: float) -> Tensor:
    """Returns the share of positive values of maps [N, h, w] in the squares of that side at those places [N]."""
    shares = []
    for values, (row, column) in zip(maps.clamp(min=0), places.tolist(), strict=True):
        top, left = (slice(round(side * place), round(side * (place + 1))) for place in (row, column))
        shares.append(values[top, left].sum() / values.sum() if values.sum() > 0 else torch.tensor(0.0))
    return torch.stack(shares)


def ranked(maps: Tensor, seed: int = 0) -> Tensor:
    """Orders the values of maps [B, h, w], the smallest first, ties at random [B, h*w]."""
    flat = maps.flatten(1)
    mixed = torch.rand(flat.shape, generator=torch.Generator().manual_seed(seed)).argsort(1)
    return mixed.gather(1, flat.gather(1, mixed).argsort(dim=1, stable=True))


def left_of(images: Tensor, order: Tensor, count: int, grid: tuple[int, int], fill: str) -> Tensor:
    """Takes the first `count` patches of an order [B, h*w] away from images.

    Args:
        images: Normalised [B, 3, H, W].
        order: Numbers of patches.
        count: How many to take away.
        grid: (h, w) of the patches.
        fill: What stands in their place: "mean", "fill" (diffusion) or "ROAD".
    """
    gone = torch.zeros(len(order), grid[0] * grid[1]).scatter_(1, order[:, :count], 1.0)
    mask = F.interpolate(gone.reshape(-1, 1, *grid), images.shape[2:], mode="nearest")
    if fill == "ROAD":
        return imputed(images, mask)
    return diffused(images, mask) if fill == "fill" else images * (1 - mask)


def removal(model: Any, images: Tensor, target: Tensor, maps: Tensor, fill: str, steps: int = STEPS) -> Tensor:
    """Returns the difference of the two areas under the curves for each image [B]; ties are broken at random."""
    order, grid = ranked(maps), (maps.shape[1], maps.shape[2])
    areas = []
    for first in (order, order.flip(1)):  # the least important first, then the most
        curve = []
        for step in range(steps + 1):
            left = left_of(images, first, round(step / steps * first.shape[1]), grid, fill)
            with torch.inference_mode():
                curve.append(chosen(model(left).softmax(1), target))
        areas.append(torch.trapezoid(torch.stack(curve), dx=1 / steps, dim=0))
    return areas[0] - areas[1]


def salience(model: Any, images: Tensor, target: Tensor, maps: Tensor, groups: int = 10) -> Tensor:
    """Returns the salience-guided faithfulness coefficient of each image (Wu et al., arXiv 2404.01415, section 3).

    The patches are put into groups of equal size by their values. Each pair of groups adds the difference of their
    sums, positively if the group with the larger sum also takes more of the answered class's probability away.
    """
    order = ranked(maps).flip(1)  # the most important first
    parts, grid = order.tensor_split(groups, 1), (maps.shape[1], maps.shape[2])
    sums = torch.stack([maps.flatten(1).gather(1, part).sum(1) for part in parts], 1)
    with torch.inference_mode():
        whole = chosen(model(images).softmax(1), target)
        falls = [whole - chosen(model(left_of(images, p, p.shape[1], grid, "mean")).softmax(1), target) for p in parts]
    fall = torch.stack(falls, 1)
    total, weight = torch.zeros(len(images)), torch.zeros(len(images))
    for i in range(groups):
        for j in range(i + 1, groups):
            difference = sums[:, i] - sums[:, j]
            total += torch.where(fall[:, i] >= fall[:, j], difference, -difference)
            weight += difference.abs()
    return torch.where(weight > 0, total / weight.clamp(min=1e-12), 0.0)


def correlation(maps: Tensor, other: Tensor) -> Tensor:
    """Returns the rank correlation of two maps of each image [B]."""
    ranks = [ranked(values, seed).argsort(1).double() for seed, values in enumerate((maps, other))]
    one, two = (rank - rank.mean(1, keepdim=True) for rank in ranks)
    return (one * two).sum(1) / (one.norm(dim=1) * two.norm(dim=1))


def imputed(images: Tensor, mask: Tensor) -> Tensor:
    """Fills what a mask takes away by noisy linear imputation (ROAD, arXiv 2202.00449), by pytorch-grad-cam."""
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer

    impute = NoisyLinearImputer(noise=0.01)
    filled = images.clone()
    for i, (image, gone) in enumerate(zip(images, mask[:, 0], strict=True)):
        if gone.all():
            filled[i] = 0.0  # no neighbour is left, and the mean colour says nothing
        elif gone.any():
            with warnings.catch_warnings():  # the library hands tensors to numpy in a way that goes out of use
                warnings.simplefilter("ignore", DeprecationWarning)
                filled[i] = impute(image.contiguous(), 1 - gone)
    return filled


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


def measure(
    model: Any, images: Tensor, targets: Tensor, count: int, rivals: dict[str, Explain], blind: dict[str, Explain]
) -> Iterator[list[dict[str, Any]]]:
    """Yields for each method its rows, one for each measure.

    Args:
        model: In eval mode.
        images: Normalised test images [N, 3, S, S].
        targets: Their classes [N].
        count: Composites, and images from which patches are removed.
        rivals: Methods by name.
        blind: The same methods for the same network with random weights.
    """
    with torch.no_grad():
        right = torch.cat([model(part).argmax(1) for (part,) in batches(images, size=100)]) == targets
    grids, classes = composites(images[right], targets[right], count)
    side = model.architecture.stride * model.architecture.window
    alone, places = one_window(images, side)
    with torch.no_grad():
        known = torch.cat([model(part).argmax(1) for (part,) in batches(alone, size=100)]) == targets
    alone, places, named = alone[known][:count], places[known][:count], targets[known][:count]
    some = images[:count]
    with torch.no_grad():
        answered = torch.cat([model(part).argmax(1) for (part,) in batches(some, size=100)])
    for name, explain in rivals.items():
        torch.manual_seed(0)
        maps = torch.cat([explain(*part) for part in batches(some, answered)])
        few = slice(0, 2 * count // 5)
        results: dict[str, Tensor] = {}
        if not name.startswith("RISE"):  # of the large composites it would take hours
            results["grid game"] = grid_game(explain, grids, classes)
        inside = torch.cat([explain(*part) for part in batches(alone, named)])
        results["one window"] = share_inside(inside, places, side / images.shape[2] * maps.shape[1])
        parts = batches(some, answered, maps)
        for what, fill in (("SRG", "mean"), ("SRG fill", "fill")):
            results[what] = torch.cat([removal(model, x, y, m, fill) for x, y, m in parts])
        results["SaCo"] = torch.cat([salience(model, x, y, m) for x, y, m in parts])
        parts = batches(some[few], answered[few], maps[few])
        results["ROAD"] = torch.cat([removal(model, x, y, m, "ROAD", steps=8) for x, y, m in parts])
        torch.manual_seed(0)
        results["randomised"] = correlation(maps, torch.cat([blind[name](*part) for part in batches(some, answered)]))
        rows = []
        for what, values in results.items():
            mean, low, high = interval(values)
            rows.append(
                {"method": name, "measure": what, "images": len(values), "mean": mean, "low": low, "high": high}
            )
            print(f"{name}: {what} {mean:.3f} [{low:.3f}, {high:.3f}]", flush=True)
        yield rows


def costs(model: Any, images: Tensor, rivals: dict[str, Explain], rounds: int = 7) -> list[dict[str, Any]]:
    """Returns a row for each method: its seconds as a multiple of those of a forward pass, in turns, with quartiles."""
    images = images[:BATCH]
    with torch.no_grad():
        target = model(images).argmax(1)
    rows = []
    for name, explain in rivals.items():
        ratios = []
        for _ in range(rounds + 1):
            with torch.inference_mode():
                forward = seconds_of(lambda: model(images))
            ratios.append(seconds_of(lambda explain=explain: explain(images, target)) / forward)  # type: ignore[misc]
        low, middle, high = np.quantile(ratios[1:], [0.25, 0.5, 0.75])
        rows.append({"method": name, "measure": "cost", "images": BATCH, "mean": middle, "low": low, "high": high})
        print(f"{name}: {middle:.2f} [{low:.2f}, {high:.2f}] forward passes", flush=True)
    return rows


def seconds_of(call: Callable[[], Any]) -> float:
    """Returns the seconds of a call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main(argv: Sequence[str] | None = None) -> None:
    """Measures the methods and keeps the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="labelled images")
    parser.add_argument("--model", default="stt_micro.cifar10", help="run folder, or a model of the package")
    parser.add_argument("--name", default=None, help="what the rows call the model; by default as it was given")
    parser.add_argument("--count", type=int, default=500, help="composites, and images for removal")
    parser.add_argument(
        "--costs", action="store_true", help="measure what the methods cost instead, on a quiet machine"
    )
    parser.add_argument("--methods", nargs="+", default=None, help="of those of studies.explaining_rivals; all of them")
    args = parser.parse_args(argv)
    predictor = load(args.model, device="cpu", tta="none")
    model, splits = network_of(predictor), read_splits(str(args.data)).splits
    rivals = contestants(model)
    rivals = {name: rivals[name] for name in args.methods or rivals}
    test = splits.get("test", splits.get("val"))
    assert test is not None, "no test and no validation images"
    picked = np.random.default_rng(0).permutation(len(test))[: 8 * args.count]
    pixels = torch.stack([predictor.preprocess(test.image(int(i))) for i in picked])
    images = normalize(pixels, predictor.data_config["mean"], predictor.data_config["std"])
    order = [predictor.classes.index(name) for name in test.classes]
    targets = torch.tensor([order[test.targets[i]] for i in picked])
    here = {"model": args.name or args.model, "data": args.data.name, "img_size": images.shape[2], "date": now()}
    here |= {"commit": commit(), "environment": json.dumps(environment())}
    path = RESULTS / "explaining" / "rows.csv"
    torch.manual_seed(0)
    random = copy.deepcopy(model)
    random.init_weights()  # type: ignore[operator]
    found = measure(model, images, targets, args.count, rivals, contestants(random))
    for rows in [costs(model, images, rivals)] if args.costs else found:  # kept method by method: it takes an hour
        new = [row | here for row in rows]
        keys = {tuple(row[name] for name in KEY) for row in new}
        write_rows(path, [*(row for row in read_rows(path) if tuple(row[name] for name in KEY) not in keys), *new])


if __name__ == "__main__":
    main()
