"""Explanations in the pixels of a photograph, from Python and from the command."""

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from supertokenvit import cli
from supertokenvit.cli import main
from supertokenvit.explaining.explanation import Explanation, ExplanationError, explain, hats, in_photograph
from supertokenvit.explaining.methods import METHODS
from supertokenvit.model_folder import ModelCard, TrainedModel, save_model
from supertokenvit.prediction import Predictor, load
from supertokenvit.preprocessing import Box

CLASSES = ["cat", "dog", "$1_$"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    torch.manual_seed(0)
    model = timm.create_model("stt_nano", num_classes=3, width=32, heads=2).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    config = timm.data.resolve_data_config({}, model=model)
    folder = tmp_path_factory.mktemp("explained")
    save_model(TrainedModel(model, CLASSES, config, ModelCard(), folder / "model"))
    return folder


@pytest.fixture(scope="module")
def predictor(run):
    return load(run, device="cpu")


def photograph(width, height, seed=0):
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (6, 6, 3)).astype(np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (33, 200), (32, 32)], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_the_map_has_the_pixels_of_the_photograph_and_is_0_where_nothing_is_seen(predictor, size, method):
    (found,) = explain(predictor, photograph(*size), "dog", method=method)
    assert found.map.shape == size[::-1] and found.map.dtype == np.float32 and found.label == "dog"
    assert found.windows.shape == (2, 2) and np.abs(found.windows).sum() == pytest.approx(1)
    box = predictor.preprocess.box(size)
    rows, columns = (np.arange(length) + 0.5 for length in found.map.shape)
    outside = ((rows < box.top) | (rows > box.bottom))[:, None] | (columns < box.left) | (columns > box.right)
    assert not found.map[outside].any() and found.map[~outside].any()
    p = dict(zip((answer := predictor(photograph(*size), topk=3)[0]).labels, answer.probabilities, strict=True))
    assert found.probability == pytest.approx(p["dog"], abs=1e-5)


def test_a_patch_is_where_it_was_in_the_photograph():
    patches = torch.zeros(4, 4)
    patches[1, 2] = 1.0
    # the square of 32 px shows the box from (10, 20) to (90, 100): a patch of 8 px is 20 pixels wide there
    found = in_photograph(patches, Box(10, 20, 90, 100), (120, 110), (32, 32), 8)
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert (row, column) in {(49, 59), (49, 60), (50, 59), (50, 60)} and found.max() > 0.9
    assert found.sum() == pytest.approx(400, rel=0.01)  # a hat over the patch's 20 x 20 pixels
    assert not found[:20].any() and not found[:, :10].any() and not found[:, 90:].any()


def test_a_constant_map_stays_constant_to_the_edges_of_the_box():
    weights = hats(50, -3.0, 61.0, 32, 4, 8)
    torch.testing.assert_close(weights.sum(1), torch.ones(50))


def test_one_image_several_and_classes_for_each(predictor):
    pictures = [photograph(40, 40, seed) for seed in range(3)]
    together = explain(predictor, pictures, ["cat", "dog", "cat"])
    for picture, found in zip(pictures, together, strict=True):
        alone = explain(predictor, picture, found.label)[0]
        np.testing.assert_allclose(found.map, alone.map, rtol=1e-3, atol=1e-7)
    likeliest = explain(predictor, pictures, topk=2)
    assert [found.label for found in likeliest] == [
        label for answer in predictor(pictures, topk=2) for label in answer.labels
    ]
    assert [found.file for found in likeliest[::2]] == ["image 0", "image 1", "image 2"]


def test_what_cannot_be_explained_is_one_line(predictor, run):
    image = photograph(32, 32)
    for options, said in (
        ({"target": "owl"}, "class owl: the model knows cat, dog"),
        ({"target": ["cat", "dog"]}, "2 classes for 1 images"),
        ({"method": "magic"}, "method=magic: must be one of composed"),
    ):
        with pytest.raises(ExplanationError, match=said):
            explain(predictor, image, **options)
    foreign = timm.create_model("resnet10t", num_classes=3).eval()
    config = timm.data.resolve_data_config({}, model=foreign)
    other = Predictor.of(TrainedModel(foreign, CLASSES, config, ModelCard(), run / "x"))
    with pytest.raises(ExplanationError, match="no Super Token Transformer in torch"):
        explain(other, image)
    with pytest.raises(ExplanationError, match="no Super Token Transformer"):
        explain(Predictor(lambda x: x, CLASSES, config, ModelCard()), image)


def test_the_strongest_region_is_the_smallest_box_around_it():
    map_ = np.zeros((20, 30), dtype=np.float32)
    map_[5:9, 12:18], map_[2, 3] = 0.6, 0.4
    map_[6, 13] = 1.0
    found = Explanation("x", "cat", 0.5, "composed", map_, Box(0, 0, 30, 20), np.ones((1, 1)), (1.0, 1.0), 1.0, 0.0)
    assert found.strongest() == Box(12, 5, 18, 9)
    found.map = -map_
    assert found.strongest() is None


def test_the_command_writes_overlays_maps_and_a_picture(run, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    upright = photograph(60, 40)
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    turned.save(tmp_path / "in" / "turned.png", exif=exif)
    upright.save(tmp_path / "in" / "upright.png")
    out = tmp_path / "out"
    words = ["explain", str(tmp_path / "in"), "--model", str(run), "--topk", "3", "--out", str(out)]
    main([*words, "--windows"])
    assert "most of all x" in capsys.readouterr().out
    names = sorted(path.name for path in out.iterdir())
    assert (
        "upright-cat.png" in names and "turned-_1__.npy" in names and "explanations.png" in names and len(names) == 13
    )
    for label in ("cat", "dog", "_1__"):
        one, other = (np.load(out / f"{name}-{label}.npy") for name in ("upright", "turned"))
        assert one.shape == (40, 60)
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)
        with Image.open(out / f"turned-{label}.png") as painted:
            assert painted.size == (60, 40)
    main([*words, "--json", "--class", "dog", "--method", "occlusion"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["label"] for row in rows] == ["dog", "dog"] and rows[0]["method"] == "occlusion"
    assert set(rows[0]) >= {"file", "probability", "strongest", "windows", "positive", "negative"}


def test_an_image_that_cannot_be_read_is_named_and_the_others_are_explained(run, tmp_path, capsys):
    photograph(32, 32).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"damaged")
    with pytest.raises(SystemExit):
        main(["explain", str(tmp_path), "--model", str(run), "--out", str(tmp_path / "out")])
    errors = capsys.readouterr().err
    assert "b.png: not an image" in errors and "1 image could not be read" in errors
    assert (tmp_path / "out" / "explanations.png").exists()


def test_the_command_offers_every_method():
    assert cli.METHOD["choices"] == list(METHODS) and cli.METHOD["default"] == "composed"
