import tempfile
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from supertokenvit.data.augmentation import GROUP, BatchAugmentation, Crop, sample_generator, seed_step
from supertokenvit.data.decode import BadImage
from supertokenvit.data.loading import (
    Keep,
    Key,
    StepBatches,
    TrainImages,
    _stacked,
    eval_batches,
    train_loader,
    usable_workers,
)
from supertokenvit.data.splits import open_splits
from supertokenvit.preprocessing import Preprocess, normalize
from tests.training.conftest import make_folder


@pytest.mark.parametrize("kind", ["shift", "none"])
def test_crops_of_a_batch_equal_crops_one_by_one(kind):
    images = torch.randint(0, 256, (9, 3, 16, 16), dtype=torch.uint8)
    crop, flips = Crop(kind, 1.0), [i % 3 == 0 for i in range(9)]
    batch = crop.batch(images, 16, [sample_generator(0, 3, i) for i in range(9)], flips)
    alone = [crop.one(image, 16, sample_generator(0, 3, i), flips[i]) for i, image in enumerate(images)]
    assert torch.equal(batch, torch.stack(alone))


def test_a_shift_moves_by_up_to_an_eighth_in_every_direction():
    image = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).expand(3, -1, -1)
    crop = Crop("shift", 1.0)
    for flip in (False, True):
        seen = {tuple(crop.one(image, 16, sample_generator(1, 0, i), flip)[0, 8, [7, 8]].tolist()) for i in range(400)}
        assert len(seen) == 5 * 5 and all((left > right) == flip for left, right in seen)


@pytest.mark.parametrize("hflip", [0.0, 0.3, "alternating"])
def test_images_are_mirrored_as_often_as_asked(tmp_path, hflip):
    source = open_splits(str(make_folder(tmp_path / "data", per_class=40))).train
    images = TrainImages(source, Keep(16), Crop("none", 1.0), hflip=hflip, seed=0, memory=True)
    plain = images.images
    seen = []
    for epoch in range(12):
        got, _, indices, _ = images.__getitems__([Key(epoch, i, 16) for i in range(len(images))])
        assert all(
            torch.equal(x, plain[i]) or torch.equal(x, plain[i].flip(2)) for x, i in zip(got, indices, strict=True)
        )
        seen.append([not torch.equal(x, plain[i]) for x, i in zip(got, indices, strict=True)])
    mirrored = np.array(seen)
    if hflip == "alternating":
        assert (mirrored[::2] == mirrored[0]).all() and (mirrored[1::2] == ~mirrored[0]).all()
        assert 0.4 < mirrored[0].mean() < 0.6
    else:
        assert abs(mirrored.mean() - hflip) < 0.05


@settings(max_examples=50)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 1000))
def test_resized_crops_stay_inside_the_image(height, width, seed):
    top, left, h, w = Crop("resized", 0.3).box(height, width, np.random.default_rng(seed))
    assert 0 <= top and 0 <= left and h >= 1 and w >= 1 and top + h <= height and left + w <= width


def keys(batches):
    return [key for batch in batches for key in batch]


def test_every_image_once_per_epoch_and_resuming_changes_nothing():
    whole = list(islice(StepBatches(6, 2, sizes=[16], seed=1, first=0), 7))
    assert sorted(i for _, i, _ in keys(whole[:3])) == sorted(i for _, i, _ in keys(whole[3:6])) == list(range(6))
    assert keys(whole[:3]) != [(0, i, 16) for _, i, _ in keys(whole[3:6])]
    assert list(islice(StepBatches(6, 2, sizes=[16], seed=1, first=4), 3)) == whole[4:]


def test_drawing_by_weight_evens_out_the_classes():
    weights = np.array([1 / 90] * 90 + [1 / 10] * 10)
    drawn = [i for _, i, _ in keys(islice(StepBatches(100, 50, sizes=[16], seed=0, first=0, weights=weights), 40))]
    assert 0.45 < np.mean(np.array(drawn) >= 90) < 0.55


@pytest.mark.parametrize("kind", ["shift", "resized"])
def test_memory_disk_and_workers_give_the_same_batches(tmp_path, kind):
    folder = make_folder(tmp_path / "data")
    for image in sorted(folder.rglob("*.png"))[::5]:
        image.write_bytes(image.read_bytes()[:100])  # damaged ones are left out of their batches either way
    source = open_splits(str(folder)).train
    crop = Crop(kind, 0.3)
    results = []
    for memory, workers in ((True, 0), (False, 0), (False, 2)):
        images = TrainImages(source, Keep(16), crop, hflip=0.5, seed=4, memory=memory)
        loader = train_loader(images, StepBatches(len(images), 5, sizes=[16], seed=4, first=0), workers)
        results.append([(x, y.tolist(), i) for x, y, i, _ in islice(loader, 6)])
        assert any(len(i) < 5 for _, _, i in results[-1])
    for other in results[1:]:
        for (x, y, i), (x2, y2, i2) in zip(results[0], other, strict=True):
            assert torch.equal(x, x2) and y == y2 and i == i2


def test_batch_augmentation_depends_on_seed_and_step_alone():
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    targets = torch.arange(8) % 3
    augment = BatchAugmentation(
        (0.5,) * 3, (0.25,) * 3, num_classes=3, randaugment=9, erasing=0.5, mixup=0.5, cutmix=1.0
    )
    results = []
    for step in (5, 6, 5):
        seed_step(0, 0)
        results.append(augment(images, targets, 0, step, 0))
    assert torch.equal(results[0][0], results[2][0]) and torch.equal(results[0][1], results[2][1])
    assert not torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1].sum(1), torch.ones(8))


def test_a_batch_is_augmented_alike_whole_and_in_parts():
    images = torch.randint(0, 256, (3 * GROUP + 5, 3, 16, 16), dtype=torch.uint8)
    targets = torch.arange(len(images)) % 3
    augment = BatchAugmentation(
        (0.5,) * 3, (0.25,) * 3, num_classes=3, randaugment=9, erasing=0.5, mixup=0.5, cutmix=1.0
    )
    whole, soft = augment(images, targets, 7, 3, 0)
    parts = [augment(images[i : i + GROUP], targets[i : i + GROUP], 7, 3, i) for i in range(0, len(images), GROUP)]
    assert torch.equal(whole, torch.cat([x for x, _ in parts])) and torch.equal(soft, torch.cat([y for _, y in parts]))
    alone, label = augment(images[:1], targets[:1], 7, 3, 0)
    assert alone.shape == (1, 3, 16, 16) and label.shape == (1, 3)


def test_parts_of_batches_are_the_batches():
    whole = list(islice(StepBatches(100, 12, sizes=[16, 24, 32], seed=1, first=3), 20))
    parts = [
        islice(StepBatches(100, 12, sizes=[16, 24, 32], seed=1, first=3, share=slice(i, i + 4)), 20) for i in (0, 4, 8)
    ]
    assert [sum(batch, []) for batch in zip(*parts, strict=True)] == whole


def test_normalisation_is_the_plain_formula():
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    expected = (images / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(normalize(images, mean, std), expected)


def test_an_image_drawn_twice_in_an_epoch_is_cropped_anew():
    weights = np.array([1 / 90] * 90 + [1 / 10] * 10)
    batches = [
        list(islice(StepBatches(100, 50, sizes=[16], seed=0, first=first, weights=weights), 4)) for first in (0, 1)
    ]
    assert len(set(keys(batches[0]))) == 200 and batches[0][1:] == batches[1][:3]
    parts = [
        StepBatches(100, 50, sizes=[16], seed=0, first=0, weights=weights, share=slice(i, i + 25)) for i in (0, 25)
    ]
    assert [sum(batch, []) for batch in zip(*(islice(part, 4) for part in parts), strict=True)] == batches[0]


def test_batches_of_evaluation_are_whole_tensors_with_the_places_of_the_images(tmp_path):
    folder = make_folder(tmp_path / "data", per_class=10)
    source = open_splits(str(folder), val_fraction=0).train
    bad = [3, 4, 5, 17]
    for i in bad:
        path = Path(source.name(i))
        path.write_bytes(path.read_bytes()[:100])
    preprocess = Preprocess(
        {
            "input_size": (3, 16, 16),
            "interpolation": "bicubic",
            "crop_pct": 1,
            "crop_mode": "center",
            "mean": (0.5, 0.5, 0.5),
        }
    )
    for workers in (0, 2):
        found = list(eval_batches(source, preprocess, 3, workers))
        assert sum((indices for _, indices, _ in found), []) == [i for i in range(20) if i not in bad]
        assert sum((names for _, _, names in found), []) and sum(len(names) for _, _, names in found) == len(bad)
        for images, indices, _ in found:
            assert len(images) == len(indices)
            assert all(torch.equal(x, preprocess(source.image(i))) for x, i in zip(images, indices, strict=True))


def test_workers_hand_over_a_batch_by_one_descriptor():
    """A list of images took one for each, and a machine of many cores ran out of them."""
    images = [torch.zeros(3, 2, 2, dtype=torch.uint8)] * 3 + [BadImage("a", "damaged")]
    pixels, shapes, places, bad, count = _stacked(images)
    assert pixels.shape == (36,) and shapes == [(3, 2, 2)] * 3 and places == [0, 1, 2] and len(bad) == 1 and count == 4


def test_a_long_path_for_temporary_files_takes_no_workers_which_would_never_answer(tmp_path, monkeypatch):
    long = tmp_path / ("a" * 120)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert usable_workers(3) == 0
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    assert usable_workers(3) == 3
