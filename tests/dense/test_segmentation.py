"""Segmentation from the mask to the model folder, against slow counts and other libraries' figures."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from supertokenvit.answers import predict_and_print
from supertokenvit.data.decode import BadImage
from supertokenvit.data.splits import open_splits
from supertokenvit.dense.masks import Fit, KeepPair, PairCrop, confusion_of, overlay, palette_image
from supertokenvit.dense.segmentation import Seen, Segmentation
from supertokenvit.dense.segmenter import HEADS, Segmenter
from supertokenvit.errors import UsageError
from supertokenvit.evaluation import EvaluationError, evaluate
from supertokenvit.evaluation_report import evaluate_and_write
from supertokenvit.model_folder import load_model
from supertokenvit.prediction import load
from supertokenvit.tasks import Ragged
from supertokenvit.training.progress import TrainingStopped
from supertokenvit.training.recipe import Recipe, RecipeError
from supertokenvit.training.run import read_recipe, resume, train

from .folders import TINY, draw, make_masks

QUIET = Console(quiet=True)


def size_of(picture):
    with Image.open(picture) as image:
        return image.size


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("segmentation")
    data = make_masks(root / "data", test=3)
    return train(data, out=str(root / "run"), console=QUIET, **TINY | {"epochs": 12, "lr": 3e-3})


def test_figures_are_those_of_torchmetrics_over_all_pixels():
    rng = torch.Generator().manual_seed(0)
    K, seen = 4, Ragged()
    jaccard = MulticlassJaccardIndex(K, average="none", ignore_index=255)
    accuracy = MulticlassAccuracy(K, average="micro", ignore_index=255)
    for n in range(5):
        truth = torch.randint(0, 3, (6 + n, 7), generator=rng)  # class 3 is answered, and nowhere true
        truth[0, :3] = 255
        answer = torch.randint(0, K, truth.shape, generator=rng)
        jaccard.update(answer[None], truth[None])
        accuracy.update(answer[None], truth[None])
        seen.append(Seen(confusion_of(truth, answer, K).numpy(), 2.0))
    found = Segmentation().figures(seen, None, ["a", "b", "c", "d"])
    assert [found.per_class[name].iou for name in "abcd"] == pytest.approx(jaccard.compute().tolist())
    assert found.mean_iou == pytest.approx(jaccard.compute().mean().item())
    assert found.pixel_accuracy == pytest.approx(accuracy.compute().item())
    assert found.missing_classes == ["d"] and found.per_class["d"].recall is None
    pixels = sum(7 * (6 + n) - 3 for n in range(5))
    assert found.confusion_matrix().sum() == pixels and found.loss == pytest.approx(10 / pixels)


def test_the_mean_is_over_all_images_and_not_of_them():
    good, bad = np.array([[9, 0], [0, 1]]), np.array([[0, 9], [0, 90]])
    found = Segmentation().figures(Ragged([Seen(good, 0.0), Seen(bad, 0.0)]), None, ["a", "b"])
    assert found.mean_iou == pytest.approx((9 / 18 + 91 / 100) / 2)


def test_the_loss_is_the_mean_over_pixels_that_count():
    task = Segmentation(class_weights=torch.tensor([1.0, 3.0]))
    logits = torch.randn(2, 2, 3, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.tensor([[0, 1, 255], [1, 1, 0], [255, 0, 0]]).expand(2, 3, 3)
    total = weight = 0.0
    for n, row, column in np.ndindex(2, 3, 3):
        y = int(targets[n, row, column])
        if y != 255:
            p = logits[n, :, row, column].softmax(0)[y].item()
            total, weight = total - [1.0, 3.0][y] * math.log(p), weight + [1.0, 3.0][y]
    assert (task.loss(logits, targets) / task.weight(targets)).item() == pytest.approx(total / weight, rel=1e-5)
    task.loss(logits, targets).backward()
    assert not logits.grad[:, :, 0, 2].any() and logits.grad[:, :, 0, 0].all()


@pytest.mark.parametrize("kind", ["resized", "shift", "none"])
@pytest.mark.parametrize("flip", [False, True])
def test_masks_move_with_their_images(kind, flip):
    """On an image that is its mask, the changed image is the changed mask."""
    mask = torch.zeros(60, 90, dtype=torch.uint8)
    mask[10:40, 20:35] = 1
    image = (200 * mask).expand(3, -1, -1)
    for seed in range(5):
        crop = PairCrop(kind, 64, 0.3)
        seen, labels = crop(image, mask, np.random.default_rng(seed), flip)
        assert seen.shape == (3, 64, 64) and labels.shape == (64, 64) and labels.dtype == torch.int64
        assert ((seen[0] > 100).long() - labels).abs().float().mean() < 0.03
        again = crop(image, mask, np.random.default_rng(seed), flip)
        assert torch.equal(again[0], seen) and torch.equal(again[1], labels)
    plain = PairCrop(kind, 64, 0.3)(image, mask, np.random.default_rng(0), False)[1]
    assert torch.equal(PairCrop(kind, 64, 0.3)(image, mask, np.random.default_rng(0), True)[1], plain.flip(1))


def test_photographs_keep_their_shape():
    fit = Fit({"input_size": (3, 96, 96), "interpolation": "bicubic"})
    for size in ((480, 360), (360, 480), (97, 95), (1000, 20)):
        width, height = fit.size_of(size)
        assert width % 32 == height % 32 == 0 and min(width, height) == 96
        assert abs(width / height - size[0] / size[1]) <= 16 / 96 * max(1, size[0] / size[1])
    assert fit(Image.new("RGB", (480, 360))).shape == (3, 96, 128)


def test_a_mask_of_another_size_is_damage(tmp_path):
    data = make_masks(tmp_path / "data")
    Image.fromarray(np.zeros((10, 20), dtype=np.uint8)).save(data / "train" / "masks" / "002.png")
    with pytest.raises(BadImage, match="002.png: 96 x 72 pixels, and its mask has 20 x 10"):
        KeepPair(open_splits(str(data)).train, 64)(2)


@pytest.mark.parametrize("head", HEADS)
def test_every_head_goes_on_every_kind_of_backbone(head):
    for name, options in (("stt_t", {"width": 32, "heads": 2, "global_layers": 1}), ("resnet10t", {})):
        model = Segmenter(name, 3, head, **options)
        logits = model(torch.randn(2, 3, 64, 70))
        assert logits.shape == (2, 3, 64, 70)
        logits.square().mean().backward()
        assert not [n for n, weight in model.named_parameters() if weight.grad is None]
        names = [n for n, _ in model.named_parameters()]
        assert model.no_weight_decay() <= set(names)
        first = model.pretrained_cfg["first_conv"]
        assert all(f"{module}.weight" in names for module in (*first, model.pretrained_cfg["classifier"]))


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "convnext_atto"])
def test_backbones_that_insist_on_a_size_take_any(name):
    small = {"embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)} if "swin" in name else {}
    model = Segmenter(name, 3, "fpn", **small | ({"img_size": 64} if small else {})).eval()
    assert model(torch.randn(1, 3, 64, 128)).shape == (1, 3, 64, 128)


def test_learned_grids_have_no_weight_decay():
    model = Segmenter("stt_t", 3, "fpn", width=32, heads=2)
    assert {n.rsplit(".", 3)[-2] for n in model.no_weight_decay()} == {"positions", "super_tokens"}


def test_it_learns_and_the_run_folder_is_whole(trained):
    found = json.loads(trained.evaluation.read_text())
    assert found["validation"]["mean_iou"] > 0.8 and found["test"]["mean_iou"] > 0.8
    assert found["test"]["classes"] == ["dark", "bright"] and found["test"]["per_class"]["dark"]["iou"] > 0.8
    header = trained.metrics.read_text().splitlines()[0].split(",")
    assert "val_mean_iou" in header and "train_accuracy" in header
    for picture in (trained.samples, trained.curves, trained.confusion):
        assert size_of(picture)[0] > 100
    card = load_model(trained).card
    assert card.task == "segmentation" and set(card.scores) == {"validation", "test"}


def test_a_loaded_model_is_the_trained_one(trained):
    predictor = load(trained, device="cpu")
    figures = evaluate(trained, split="test", device="cpu")
    assert figures.mean_iou == pytest.approx(json.loads(trained.evaluation.read_text())["test"]["mean_iou"], abs=1e-6)
    assert predictor.classes == ["dark", "bright"] and predictor.network.model.head == "fpn"
    assert read_recipe(trained).head == "fpn"


def test_answers_are_masks_in_the_photographs_own_size(trained):
    image, mask = draw(77, width=131, height=67)
    answer, broken = load(trained, device="cpu")([image, b"no image"])
    assert answer.mask.shape == (67, 131) and answer.mask.dtype == np.uint8
    counted = mask != 255
    assert (answer.mask == mask)[counted].mean() > 0.85
    assert sum(answer.shares.values()) == pytest.approx(1)
    assert answer.shares["dark"] == pytest.approx((answer.mask == 0).mean())
    assert broken.mask is None and broken.error == "not an image"


def test_views_are_refused(trained):
    with pytest.raises(UsageError, match="tta=flip: not for segmentation"):
        load(trained, tta="flip", device="cpu")


def test_images_of_several_sizes_are_answered_as_alone(trained):
    predictor = load(trained, device="cpu")
    images = [draw(n, width=60 + 40 * (n % 2))[0] for n in range(4)]
    for one, image in zip(predictor(images), images, strict=True):
        assert (predictor(image)[0].mask == one.mask).mean() > 0.999


def test_predict_writes_masks_and_overlays(trained, tmp_path, capsys):
    image, _ = draw(5)
    (tmp_path / "in").mkdir()
    image.save(tmp_path / "in" / "a.png")
    predict_and_print([str(tmp_path / "in")], str(trained), out=str(tmp_path / "out"), device="cpu")
    assert "dark" in capsys.readouterr().out
    with Image.open(tmp_path / "out" / "a.png") as written:
        assert written.mode == "P" and written.size == image.size
        assert np.array_equal(np.asarray(written), load(trained, device="cpu")(image)[0].mask)
    assert size_of(tmp_path / "out" / "a-overlay.png") == image.size
    predict_and_print([str(tmp_path / "in")], str(trained), out=str(tmp_path / "out"), as_json=True, device="cpu")
    row = json.loads(capsys.readouterr().out)
    assert row["size"] == [96, 72] and set(row["shares"]) <= {"dark", "bright"}


def test_evaluate_writes_rows_and_the_worst_images(trained, capsys):
    evaluate_and_write(str(trained), None, "val", None, device="cpu")
    out = capsys.readouterr().out
    assert "mean IoU" in out and "pixel accuracy" in out and "IoU %" in out
    lines = trained.answers_of("val").read_text().splitlines()
    assert lines[0] == "file,mean_iou,pixel_accuracy,loss" and len(lines) == 5
    assert size_of(trained.worst_of("val"))[1] > 300


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path):
    data = make_masks(tmp_path / "data")
    options = TINY | {"epochs": 2, "workers": 0, "cache": "disk"}
    whole = train(data, out=str(tmp_path / "whole"), console=QUIET, **options)

    def stop(event):
        if event.kind == "checkpoint" and event.step == 3:
            raise TrainingStopped("here")

    with pytest.raises(TrainingStopped):
        train(data, out=str(tmp_path / "part"), console=QUIET, callbacks=[stop], **options)
    part = resume(tmp_path / "part", console=QUIET, cache="memory")
    for name, weight in load_model(whole).model.state_dict().items():
        assert torch.equal(weight, load_model(part).model.state_dict()[name]), name


def test_it_starts_from_a_classifier_and_from_a_segmenter(trained, tmp_path):
    data = make_masks(tmp_path / "data")
    again = train(data, out=str(tmp_path / "again"), console=QUIET, init=str(trained), epochs=1, batch_size=4, lr=1e-9,
                  precision="fp32", device="cpu")  # fmt: skip
    before = dict(load_model(trained).model.named_parameters())
    for name, weight in load_model(again).model.named_parameters():
        torch.testing.assert_close(weight, before[name], atol=1e-5, rtol=1e-5, msg=name)
    assert json.loads(again.evaluation.read_text())["validation"]["mean_iou"] > 0.8
    with pytest.raises(RecipeError, match="was trained for segmentation, not for classification"):
        train("digits", out=str(tmp_path / "no"), console=QUIET, init=str(trained), epochs=1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mixup": 0.2}, "mixup=0.2: not for segmentation"),
        ({"tta": "flip"}, "tta=flip: not for segmentation"),
        ({"hflip": "alternating"}, "hflip=alternating: not for segmentation"),
        ({"resize": "squash"}, "resize=squash: not for segmentation"),
        ({"head": "swan"}, "head=swan: must be one of fpn, "),
        ({"classes": ["a"]}, None),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(tmp_path, changes, said):
    data = make_masks(tmp_path / "data")
    expected = (RecipeError, said) if said else (Exception, "has the value 1, and there are 1 classes")
    with pytest.raises(expected[0], match=expected[1]):
        train(data, out=str(tmp_path / "run"), console=QUIET, **TINY | changes)


def test_data_of_another_kind_or_other_classes_is_refused(trained, tmp_path):
    with pytest.raises(EvaluationError, match="one label for each image, and the model was trained for a mask"):
        evaluate(trained, data="digits", device="cpu")


def test_painting_leaves_ignored_pixels_as_they_are():
    photograph = np.full((2, 2, 3), 100, dtype=np.uint8)
    painted = overlay(photograph, np.array([[0, 1], [255, 0]], dtype=np.uint8), 2)
    assert (painted[1, 0] == 100).all() and (painted[0, 0] != painted[0, 1]).any()
    mask = np.array([[0, 1, 255]], dtype=np.uint8)
    assert np.array_equal(np.asarray(palette_image(mask, 2)), mask)


def test_ragged_targets_do_what_is_asked_of_a_tensor():
    ragged = Ragged({"a": torch.full((n,), n)} for n in range(5))
    assert [len(part) for part in ragged.tensor_split(2)] == [3, 2]
    assert [item["a"].numel() for item in ragged[torch.tensor([4, 0, 4])]] == [4, 0, 4]
    assert ragged[1:3][1]["a"].tolist() == [2, 2] and ragged.to("cpu")[3]["a"].tolist() == [3, 3, 3]
    assert isinstance(ragged[:2], Ragged)


def test_what_is_for_masks_only_is_refused_elsewhere(tmp_path):
    with pytest.raises(RecipeError, match="ignore=3: not for classification"):
        train("digits", out=str(tmp_path / "run"), console=QUIET, ignore=3, epochs=1)


def test_a_recipe_knows_its_tasks():
    with pytest.raises(RecipeError, match="ignore"):
        Recipe(ignore=256)
