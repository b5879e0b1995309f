"""Explanations in the pixels of a photograph, from Python and from the command."""

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from supertokenvit.cli import main
from supertokenvit.explaining.explanation import METHODS, Explanation, ExplanationError, explain, hats
from supertokenvit.explaining.methods import SUPER_TOKEN_METHODS
from supertokenvit.explaining.talk import listened
from supertokenvit.model_folder import ModelCard, TrainedModel, save_model
from supertokenvit.prediction import Predictor, load
from supertokenvit.preprocessing import Box
from supertokenvit.verbs.options import METHOD

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
@pytest.mark.parametrize("method", SUPER_TOKEN_METHODS)
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
    patches = np.zeros((4, 4), dtype=np.float32)
    patches[1, 2] = 1.0
    found = Explanation("x", "cat", 0.5, "composed", patches, (20, 20), Box(10, 20, 90, 100), (120, 110)).map
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert (row, column) in {(49, 59), (49, 60), (50, 59), (50, 60)} and found.max() > 0.9
    assert found.sum() == pytest.approx(400, rel=0.01)  # a hat over the patch's 20 x 20 pixels
    assert not found[:20].any() and not found[:, :10].any() and not found[:, 90:].any()


def test_a_constant_map_stays_constant_to_the_edges_of_the_box():
    weights = hats(50, -3.0, 61.0, 8.0, 8)
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


@pytest.mark.parametrize("method", SUPER_TOKEN_METHODS)
def test_the_map_of_a_mirrored_photograph_is_mirrored_where_the_answer_looks_at_mirror_images(run, method):
    predictor = load(run, device="cpu", tta="flip")
    image = photograph(48, 32)
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    one, other = explain(predictor, [image, mirrored], "dog", method=method)
    np.testing.assert_allclose(one.map, other.map[:, ::-1], rtol=1e-3, atol=1e-5 * np.abs(one.map).max())
    np.testing.assert_allclose(one.windows, other.windows[:, ::-1], rtol=1e-3, atol=1e-5)
    alone = explain(load(run, device="cpu", tta="none"), image, "dog", method=method)[0]
    assert np.abs(alone.map - one.map).max() > 0.01 * np.abs(one.map).max()


FOREIGN = {
    "resnet10t": {},
    "vit_tiny_patch16_224": {"img_size": (64, 96), "depth": 2},
    "swin_tiny_patch4_window7_224": {"img_size": 64, "depths": (1, 1), "embed_dim": 24, "num_heads": (2, 2)},
    "convnext_atto": {},
    "mobilenetv3_small_050": {},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_models_of_other_families_are_explained_by_grad_cam(name, tmp_path):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3, **FOREIGN[name]).eval()
    for parameter in list(model.parameters())[:2]:
        parameter.requires_grad_(False)  # as of a model that was partly frozen
    size = FOREIGN[name].get("img_size", 64)
    side = size if isinstance(size, tuple) else (size, size)
    config = timm.data.resolve_data_config({}, model=model) | {"input_size": (3, *side), "crop_mode": "squash"}
    predictor = Predictor.of(TrainedModel(model, CLASSES, config, ModelCard(), tmp_path / name))
    maps = explain(predictor, photograph(90, 60), topk=3)
    assert all(found.method == "gradcam" and found.windows is None and found.map.shape == (60, 90) for found in maps)
    assert min(found.map.min() for found in maps) >= 0
    # where everything speaks against a class its map is 0, but not that of all classes
    assert max(found.map.max() for found in maps) > 0.5 and max(found.map.std() for found in maps) > 0
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [parameter.requires_grad for parameter in model.parameters()][:3] == [False, False, True]


def test_a_window_listens_to_those_that_attention_reaches(predictor):
    model = predictor.network.model
    x = torch.randn(2, 3, 32, 48)
    heard = listened(model, x)
    assert heard.shape == (2, 6, 6)
    torch.testing.assert_close(heard.sum(2), torch.ones(2, 6))
    with torch.no_grad():
        _, collect = model.forward_collect(x)
    slow = torch.eye(6).repeat(2, 1, 1)
    for i in range(len(model.global_layers)):  # each half of what it was and half of what it attends to
        slow = torch.stack(
            [
                (0.5 * torch.eye(6) + 0.5 * a.mean(0)) @ s
                for a, s in zip(collect[f"global.{i}.attention"], slow, strict=True)
            ]
        )
    torch.testing.assert_close(heard, slow)


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
    with pytest.raises(ExplanationError, match="composed follows Super tokens, and it has none; take method=gradcam"):
        explain(other, image, method="composed")
    with pytest.raises(ExplanationError, match="needs a model in torch"):
        explain(Predictor(lambda x: x, CLASSES, config, ModelCard()), image)
    with pytest.raises(ExplanationError, match="needs eval mode"):
        explain(Predictor.of(TrainedModel(foreign.train(), CLASSES, config, ModelCard(), run / "x")), image)


def test_the_strongest_region_is_the_smallest_box_around_it():
    pixels = np.zeros((20, 30), dtype=np.float32)
    pixels[5:9, 12:18], pixels[2, 3] = 0.6, 0.4
    pixels[6, 13] = 1.0
    found = [Explanation("x", "cat", 0.5, "?", p, (1, 1), Box(0, 0, 30, 20), (30, 20)) for p in (pixels, -pixels)]
    np.testing.assert_allclose(found[0].map, pixels, atol=1e-6)
    assert found[0].strongest() == Box(12, 5, 18, 9) and found[1].strongest() is None
    assert found[0].positive == pytest.approx(pixels.sum()) and found[0].negative == 0


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
    main([*words, "--windows", "--talk"])
    assert "most of all x" in capsys.readouterr().out
    names = sorted(path.name for path in out.iterdir())
    assert (
        "upright-cat.png" in names and "turned-_1__.npy" in names and "explanations.png" in names and len(names) == 19
    )
    for label in ("cat", "dog", "_1__"):
        one, other = (np.load(out / f"{name}-{label}.npy") for name in ("upright", "turned"))
        assert one.shape == (40, 60)
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)
        with Image.open(out / f"turned-{label}.png") as painted:
            assert painted.size == (60, 40)
    main([*words, "--json", "--class", "dog", "--method", "occlusion", "--talk"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["label"] for row in rows] == ["dog", "dog"] and rows[0]["method"] == "occlusion"
    assert set(rows[0]) >= {"file", "probability", "strongest", "windows", "positive", "negative"}
    assert np.shape(rows[0]["windows"]) == (2, 2) and np.shape(rows[0]["talk"]) == (4, 4)
    with Image.open(out / "upright-dog.png") as plain, Image.open(out / "upright-dog-talk.png") as talk:
        assert np.abs(np.asarray(plain).astype(int) - np.asarray(talk)).max() > 50


def test_an_image_that_cannot_be_read_is_named_and_the_others_are_explained(run, tmp_path, capsys):
    photograph(32, 32).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"damaged")
    with pytest.raises(SystemExit):
        main(["explain", str(tmp_path), "--model", str(run), "--out", str(tmp_path / "out")])
    errors = capsys.readouterr().err
    assert "b.png: not an image" in errors and "1 image could not be read" in errors
    assert (tmp_path / "out" / "explanations.png").exists()


def test_predict_explains_what_it_answers(run, tmp_path, capsys):
    for seed, name in enumerate("ab"):
        photograph(40, 50, seed).save(tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_bytes(b"damaged")
    out = tmp_path / "why"
    with pytest.raises(SystemExit):
        main(["predict", str(tmp_path), "--model", str(run), "--json", "--explain", str(out)])
    said = capsys.readouterr()
    answers = [json.loads(line)["labels"] for line in said.out.splitlines()]
    assert "explained: " in said.err and said.err.count("c.png: not an image") == 1
    names = {path.name for path in out.iterdir()}
    assert names >= {"explanations.png"} | {
        f"{n}-{a[0].replace('$', '_')}.npy" for n, a in zip("ab", answers, strict=False)
    }


def test_the_command_offers_every_method():
    assert METHOD["choices"] == list(METHODS) and METHOD["default"] is None
