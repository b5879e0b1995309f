"""A trained model at several sizes, the size that it keeps, and images that keep their shapes."""

import json
import shutil

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from timm.data import resolve_data_config

from supertokenvit import evaluation_sizes, model_folder
from supertokenvit.benchmarking.cost import cost_of
from supertokenvit.benchmarking.options import Contestant
from supertokenvit.cli import main
from supertokenvit.data.loading import eval_batches
from supertokenvit.data.sources import Source
from supertokenvit.errors import UsageError, UserError
from supertokenvit.evaluation import evaluate
from supertokenvit.evaluation_sizes import AtSize, best_of, gmacs_of
from supertokenvit.explaining.explanation import explain
from supertokenvit.model_folder import ModelCard, TrainedModel, load_model, save_model
from supertokenvit.prediction import Predictor, load
from supertokenvit.preprocessing import LONGEST, Preprocess, alike, normalize, padded, views
from supertokenvit.run_folder import RunFolder, RunFolderError
from supertokenvit.tasks import Evaluation
from supertokenvit.training.recipe import Recipe
from supertokenvit.training.run import train_recipe

from .training.conftest import TINY, make_folder


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("sizes")
    data = make_folder(root / "data", classes=("cat", "dog", "emu"), per_class=8)
    recipe = Recipe(**(TINY | {"data": str(data), "out": str(root / "run"), "epochs": 1, "val_fraction": 0.5}))
    return train_recipe(recipe, console=Console(quiet=True)).path


@pytest.fixture
def trained(original, tmp_path, monkeypatch):
    """A copy that the test may change; speeds are measured for no longer than needed."""
    monkeypatch.setattr(evaluation_sizes, "SECONDS", 0.0)
    return shutil.copytree(original, tmp_path / "run")


def config_of(run):
    return json.loads((run / "model" / "config.json").read_text())


def test_each_size_has_the_figures_that_it_has_alone_and_its_cost(trained, capsys):
    main(["evaluate", "--model", str(trained), "--sizes", "24,12,16", "--split", "val", "--batch_size", "5"])
    printed = capsys.readouterr().out
    found = json.loads((trained / "evaluation-val-sizes.json").read_text())
    assert [row["img_size"] for row in found["rows"]] == found["sizes"] == [12, 16, 24]
    for row in found["rows"]:
        alone = evaluate(trained, split="val", img_size=row["img_size"])
        assert row["top1"] == alone.top1 and row["loss"] == pytest.approx(alone.loss, rel=1e-4)
        assert row["images_per_second"] > 0 and f"{row['img_size']} px" in printed
    gmacs = [row["gmacs"] for row in found["rows"]]
    assert gmacs == sorted(gmacs) and gmacs[0] > 0
    assert config_of(trained)["pretrained_cfg"]["input_size"] == [3, 16, 16]  # nothing is kept unasked


def test_operations_are_those_of_the_linear_layers_and_convolutions_counted_by_hand():
    model = timm.create_model("stt_nano", global_layers=1, local_layers=1, num_classes=3, layer_scale=None).eval()
    counted, hooks = [0], []

    def count(layer, inputs, output):
        each = layer.weight[0].numel()  # products for a value of the output
        counted[0] += output.numel() * each

    for layer in model.modules():
        if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d)):
            hooks.append(layer.register_forward_hook(count))
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    assert (
        counted[0] < 1e9 * gmacs_of(model, 32) < 1.1 * counted[0]
    )  # attention and the last local layer's sums besides


@pytest.mark.parametrize("name", ["stt_nano", "test_vit"])
def test_operations_are_those_that_the_benchmark_counts(name):
    cost = cost_of(Contestant(name), 160, 1)
    assert gmacs_of(timm.create_model(name), 160) == pytest.approx(cost.macs / 1e9)


@pytest.mark.parametrize("size", [12, 24])
def test_the_size_that_is_kept_is_used_by_everything_and_can_be_given_back(trained, size, tmp_path, capsys):
    before, weights = config_of(trained), (trained / "model" / "model.safetensors").read_bytes()
    expected = evaluate(trained, split="val", img_size=size)
    main(["evaluate", "--model", str(trained), "--keep-size", str(size), "--split", "val"])
    assert f"kept: {size} px" in capsys.readouterr().out
    assert evaluate(trained, split="val").loss == pytest.approx(expected.loss, rel=1e-5)
    assert load(trained).preprocess.side == (size, size)
    assert load_model(trained).card.size_rule == "named by the user"
    model = timm.create_model(f"local-dir:{trained / 'model'}", pretrained=True)
    assert resolve_data_config({}, model=model)["input_size"] == (3, size, size)
    assert (trained / "model" / "model.safetensors").read_bytes() == weights
    main(["evaluate", "--model", str(trained), "--keep-size", "16", "--split", "val"])
    after = config_of(trained)
    assert after.pop("supertokenvit") != before.pop("supertokenvit") and after == before


def test_the_best_size_is_chosen_on_the_validation_images(trained, monkeypatch, capsys):
    seen = []
    real = evaluation_sizes.open_labelled
    monkeypatch.setattr(evaluation_sizes, "open_labelled", lambda *args: seen.append(args[3]) or real(*args))
    main(["evaluate", "--model", str(trained), "--sizes", "12,16", "--keep-size", "best"])
    assert seen == ["val"]
    rows = json.loads((trained / "evaluation-val-sizes.json").read_text())["rows"]
    best = max(rows, key=lambda row: (row["top1"], -row["img_size"]))["img_size"]
    card = load_model(trained).card
    assert (
        load(trained).preprocess.side == (best, best)
        and "the best of 12, 16 px on the validation images" in card.size_rule
    )


def test_of_equals_the_cheapest_is_the_best():
    class Any:
        class task:
            score_of = staticmethod(lambda figures: figures.top1)

    rows = [AtSize(size, Evaluation(10, 1.0, top1=score), 1.0, 1.0) for size, score in ((8, 0.5), (16, 0.9), (32, 0.9))]
    assert best_of(rows, Any).img_size == 16


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sizes", "12,16", "--keep-size", "best", "--split", "test"], "chosen on validation images only"),
        (["--keep-size", "best"], "name the --sizes to choose from"),
        (["--sizes", "12,16", "--keep-size", "24"], "--keep_size 24: must be best, or one of the sizes 12, 16"),
        (["--sizes", "12;16"], "must be whole numbers of pixels"),
        (["--keep-size", "large"], "must be whole numbers of pixels"),
        (["--sizes", "12,16", "--img-size", "12"], "--sizes names all sizes"),
    ],
)
def test_options_that_do_not_go_together_are_one_line_and_change_nothing(trained, words, said, capsys):
    before = config_of(trained), sorted(trained.iterdir())
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "--model", str(trained), *words])
    errors = capsys.readouterr().err
    assert stop.value.code == 2 and said in errors and len(errors.strip().splitlines()) == 1
    assert (config_of(trained), sorted(trained.iterdir())) == before


def test_a_model_of_the_package_stays_as_it_is():
    with pytest.raises(RunFolderError, match="stays as it is"):
        model_folder.write_size("stt_micro.cifar10", 40, "named by the user")


def test_a_config_that_cannot_be_written_stays_whole(trained, monkeypatch):
    before = (trained / "model" / "config.json").read_text()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("supertokenvit.run_folder.os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        model_folder.write_size(trained, 24, "named by the user")
    assert (trained / "model" / "config.json").read_text() == before


def test_a_size_is_not_written_while_a_training_writes_the_model(trained):
    with RunFolder(trained).owned(), pytest.raises(RunFolderError, match="another training is writing"):
        model_folder.write_size(trained, 24, "named by the user")


def test_a_model_of_one_size_only_is_made_for_the_size_that_it_keeps(tmp_path):
    model = timm.create_model("test_vit2", num_classes=2, img_size=32)
    config = resolve_data_config({}, model=model) | {"input_size": (3, 32, 32)}
    save_model(TrainedModel(model, ["a", "b"], config, ModelCard(), tmp_path / "model"))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8))
    expected = load(tmp_path / "model", img_size=48)(image)[0]
    model_folder.write_size(tmp_path / "model", 48, "named by the user")
    assert load(tmp_path / "model")(image)[0].probabilities == pytest.approx(expected.probabilities, rel=1e-5)
    with pytest.raises(UsageError, match="takes square images of one size only"):
        load(tmp_path / "model", resize="keep")


# Images that keep their shapes


class Pictures(Source):
    """Noise of several shapes."""

    classes = ("cat", "dog", "emu")
    multi_label = False

    def __init__(self, shapes):
        rng = np.random.default_rng(0)
        self.pictures = [Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in shapes]
        self.targets = np.arange(len(shapes)) % 3

    def name(self, i):
        return str(i)

    def read(self, i):
        raise NotImplementedError

    def image(self, i, enough=None):
        return self.pictures[i]


SHAPES = [(20, 30), (30, 20), (16, 16), (50, 21), (21, 50), (20, 30), (9, 80), (80, 9), (33, 33), (3, 900)]


@pytest.mark.parametrize("tta", ["none", "flip", "shift"])
def test_images_of_mixed_shapes_are_answered_as_each_alone_in_any_batch(trained, tta):
    predictor = load(trained, resize="keep", tta=tta)
    pictures = Pictures(SHAPES).pictures
    network = predictor.network
    with torch.inference_mode():
        for image, row in zip(pictures, predictor.predict(pictures, 3, batch_size=9), strict=True):
            x = normalize(
                predictor.preprocess(image)[None], predictor.data_config["mean"], predictor.data_config["std"]
            )
            logits = sum(weight * network(view) for weight, view in views(x, tta))
            wanted = dict(zip(predictor.classes, logits.softmax(1)[0].tolist(), strict=True))
            for label, probability in zip(row.labels, row.probabilities, strict=True):
                assert probability == pytest.approx(wanted[label], abs=1e-5)


def test_evaluation_of_mixed_shapes_is_that_of_each_image_alone(trained, capsys):
    figures = evaluate(trained, split="val", resize="keep", batch_size=7)
    alone = evaluate(trained, split="val", resize="keep", batch_size=1)
    assert figures.loss == pytest.approx(alone.loss, rel=1e-5)
    main(["evaluate", "--model", str(trained), "--split", "val", "--resize", "keep"])
    assert json.loads((trained / "evaluation-val.json").read_text())["resize"] == "keep"


def test_batches_of_mixed_shapes_hold_every_image_whatever_the_workers():
    source = Pictures(SHAPES)
    config = {"input_size": (3, 16, 16), "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "keep"}
    preprocess = Preprocess(config | {"mean": (0.5,) * 3})
    for workers in (0, 1):
        batches = list(eval_batches(source, preprocess, 4, workers))
        assert sum((indices for _, indices, _ in batches), []) == list(range(len(SHAPES)))
        for images, indices, _ in batches:
            assert all(
                torch.equal(image, preprocess(source.image(i))) for image, i in zip(images, indices, strict=True)
            )


@pytest.mark.parametrize(("crop_pct", "shorter"), [(1.0, 32), (0.8, 40)])
def test_the_shorter_side_becomes_what_a_centre_crop_makes_of_it_and_nothing_is_cut_off(crop_pct, shorter):
    config = {"input_size": (3, 32, 32), "interpolation": "bilinear", "crop_pct": crop_pct, "mean": (0.5,) * 3}
    keep = Preprocess(config | {"crop_mode": "keep"})
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize(
        (150, 100), Image.Resampling.BICUBIC
    )
    kept = keep(image)
    assert kept.shape == (3, shorter, round(1.5 * shorter))
    centre = Preprocess(config | {"crop_mode": "center"})(image)
    top, left = (shorter - 32) // 2, (kept.shape[2] - 32) // 2
    cut = kept[:, top : top + 32, left : left + 32]
    assert (cut.int() - centre.int()).abs().float().mean() < 1
    box = keep.box(image.size)
    assert (box.left, box.top, box.right, box.bottom) == (0, 0, 150, 100)


@pytest.mark.parametrize(
    ("size", "shape"), [((1000, 10), (1, 128)), ((10, 400), (128, 3)), ((1, 5000), (128, 1)), ((64, 64), (32, 32))]
)
def test_very_long_images_get_smaller_as_a_whole(size, shape):
    config = {"input_size": (3, 32, 32), "interpolation": "bilinear", "crop_pct": 1.0, "mean": (0.5,) * 3}
    kept = Preprocess(config | {"crop_mode": "keep"})(Image.new("RGB", size))
    assert kept.shape == (3, *shape) and LONGEST == 4


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), min_size=1, max_size=20), st.sampled_from([0, 0.25])
)
def test_groups_of_similar_shapes_hold_each_image_once_and_waste_little(shapes, waste):
    groups = alike(shapes, waste)
    assert sorted(sum(groups, [])) == list(range(len(shapes)))
    for group in groups:
        sides = [shapes[place] for place in group]
        area = len(group) * max(h for h, _ in sides) * max(w for _, w in sides)
        assert area <= (1 + waste) * sum(h * w for h, w in sides)
        assert waste or len(set(sides)) == 1
    if waste == 0:
        assert len(groups) == len(set(shapes))


def test_a_network_that_takes_no_sizes_answers_batches_of_equal_shapes(trained):
    own = load(trained, resize="keep")
    seen = []

    def network(images):
        seen.append(tuple(images.shape))
        return own.network(images)

    predictor = Predictor(network, own.classes, own.data_config, own.card)
    pictures = Pictures(SHAPES).pictures
    rows = predictor(pictures)
    assert len(seen) == len({own.preprocess(picture).shape for picture in pictures})
    for row, wanted in zip(rows, own(pictures), strict=True):
        assert row.probabilities == pytest.approx(wanted.probabilities, abs=1e-5)


def test_padding_puts_each_image_at_the_upper_left():
    images = [torch.rand(3, 4, 6), torch.rand(3, 5, 2)]
    batch, sizes = padded(images)
    assert batch.shape == (2, 3, 5, 6) and sizes.tolist() == [[4, 6], [5, 2]]
    assert torch.equal(batch[0, :, :4, :6], images[0]) and torch.equal(batch[1, :, :5, :2], images[1])
    assert batch[0, :, 4:].sum() == 0 == batch[1, :, :, 2:].sum()


def test_what_is_no_way_to_resize_is_refused(trained):
    with pytest.raises(UsageError, match="resize=stretch: must be center, squash, border or keep"):
        load(trained, resize="stretch")


def test_images_in_their_own_shape_are_not_explained(trained):
    with pytest.raises(UserError, match="only squares are explained"):
        explain(load(trained, resize="keep"), Pictures(SHAPES[:2]).pictures)


def test_training_does_not_keep_shapes(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--data", str(tmp_path), "--resize", "keep"])
    errors = capsys.readouterr().err
    assert stop.value.code == 2 and len(errors.strip().splitlines()) == 1 and "center or squash or border" in errors
