"""A trained model in use: prediction, evaluation, plain timm, transformers."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from rich.console import Console

from studies import ship
from supertokenvit import model_folder
from supertokenvit.cli import VERBS, main
from supertokenvit.data.splits import open_splits
from supertokenvit.evaluation import EvaluationError, evaluate_source
from supertokenvit.model import family
from supertokenvit.model.family import WEIGHTS
from supertokenvit.model_folder import ModelCard, load_model, save_model
from supertokenvit.prediction import Predictor, load
from supertokenvit.run_folder import RunFolder, RunFolderError
from supertokenvit.tasks import Classification
from supertokenvit.training.recipe import Recipe
from supertokenvit.training.run import train_recipe

from .training.conftest import TINY, make_folder

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("use")
    data = make_folder(root / "data", classes=("cat", "dog", "emu"), per_class=12)
    return train_recipe(
        Recipe(**(TINY | {"data": str(data), "out": str(root / "run")})), console=Console(quiet=True)
    ).path


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "a.jpg")
    Image.fromarray(noise[..., 0]).save(folder / "grey.png")
    Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    Image.fromarray(noise).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(noise).quantize(16).save(folder / "palette.gif")
    return folder


def test_predict_answers_for_every_kind_of_image_as_json(trained, pictures, capsys):
    main(["predict", "--model", str(trained), "--json", "--topk", "2", str(pictures)])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 5
    for row in rows:
        assert row["error"] is None and len(row["labels"]) == 2
        assert 0 < row["probabilities"][1] <= row["probabilities"][0] <= 1
        assert set(row["labels"]) <= {"cat", "dog", "emu"}


def test_a_bad_file_is_named_the_others_are_answered_and_the_code_says_so(trained, pictures, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    (pictures / "bad.jpg").write_bytes(b"nonsense")
    with pytest.raises(SystemExit) as stop:
        main(["predict", "--model", str(trained), str(pictures), str(pictures / "gone.png")])
    printed = capsys.readouterr()
    assert stop.value.code == 1
    assert "bad.jpg: not an image" in printed.err and "gone.png: No such file" in printed.err
    assert all(name in printed.out for name in ("a.jpg", "grey.png"))


def test_batched_prediction_equals_one_by_one(trained, pictures):
    predictor = Predictor.of(load_model(trained))
    files = sorted(pictures.iterdir())
    together = list(predictor.predict(files))
    alone = [next(iter(predictor.predict([file]))) for file in files]
    for a, b in zip(together, alone, strict=True):
        assert a.labels == b.labels
        np.testing.assert_allclose(a.probabilities, b.probabilities, rtol=1e-4, atol=1e-6)


def test_a_model_loads_whatever_a_later_version_calls_by_its_name(trained, monkeypatch, tmp_path, capsys):
    before = load_model(trained).model
    name = before.pretrained_cfg["architecture"]
    monkeypatch.setitem(
        family.VARIANTS, name, family.VARIANTS[name] | {"width": 48, "stem_convs": 1, "local_mlp_ratio": 3.0}
    )
    x = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(load_model(trained).model(x), before(x))
    older = tmp_path / "older"
    shutil.copytree(trained / "model", older)
    config = json.loads((older / "config.json").read_text())
    config["model_args"] = {}
    (older / "config.json").write_text(json.dumps(config))
    with pytest.raises(SystemExit) as end:
        main(["predict", "--model", str(older), "x.jpg"])
    error = capsys.readouterr().err
    assert end.value.code == 1 and error.count("\n") == 1 and "model_args of config.json" in error


@pytest.mark.parametrize("tta", ["flip", "shift"])
def test_the_answer_is_the_weighted_mean_over_views(trained, tta):
    predictor, plain = load(trained, tta=tta), load(trained, tta="none")
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    answer = predictor.logits(images)
    if tta == "flip":
        torch.testing.assert_close(predictor.logits(images.flip(3)), answer, rtol=1e-5, atol=1e-6)
    moved = [(images, 0.5)]
    for by in (-1, 1):  # pixel by pixel, mirrored at the edges
        places = [abs(i + by) if i + by < 16 else 30 - i - by for i in range(16)]
        moved.append((images[..., places, :][..., places], 0.25))
    moved = moved if tta == "shift" else [(images, 1.0)]
    slow = sum(w / 2 * (plain.logits(view) + plain.logits(view.flip(3))) for view, w in moved)
    torch.testing.assert_close(answer, slow, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(answer, plain.logits(images), atol=1e-4)


def test_a_run_with_flips_is_measured_and_used_with_flips(trained, tmp_path, capsys):
    recipe = TINY | {"data": str(trained.parent / "data"), "out": str(tmp_path / "run"), "tta": "flip", "epochs": 2}
    run = train_recipe(Recipe(**recipe), console=Console(quiet=True)).path
    assert load_model(run).card.tta == "flip" and load_model(trained).card.tta == "none"
    losses = {}
    for tta in ("flip", "none", None):
        words = ["evaluate", "--model", str(run), "--split", "val", "--out", str(tmp_path / str(tta))]
        main(words + ([f"--tta={tta}"] if tta else []))
        losses[tta] = json.loads((tmp_path / str(tta) / "evaluation-val.json").read_text())["loss"]
    assert losses["flip"] == losses[None] != losses["none"]
    own = json.loads((run / "evaluation.json").read_text())["validation"]["loss"]
    assert own == pytest.approx(losses["flip"], rel=1e-5)


def test_plain_timm_loads_it_in_one_line_with_the_same_logits(trained, pictures):
    ours = load_model(trained)
    model = timm.create_model(f"local-dir:{trained / 'model'}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))
    image = Image.open(pictures / "a.jpg")
    predictor = Predictor.of(ours)
    with torch.inference_mode():
        logits = model(transform(image)[None])
    torch.testing.assert_close(logits, predictor.logits(predictor.preprocess(image)[None]), rtol=1e-4, atol=1e-5)


def test_weights_in_a_folder_of_the_package_are_pretrained_weights(trained, tmp_path, monkeypatch, capsys, pictures):
    model = load_model(trained)
    name = model.model.pretrained_cfg["architecture"]
    for tag, top1 in (("bad", 0.5), ("good", 0.9)):
        folder = tmp_path / "weights" / f"{name}.{tag}"
        save_model(replace(model, card=ModelCard(scores={"test": top1}), path=folder))
    cfgs = family._shipped(tmp_path / "weights")
    args = {k: v for k, v in model.model._model_args.items() if k != "num_classes"}
    loaded = timm.create_model(name, pretrained=True, pretrained_cfg=cfgs[f"{name}.good"], **args).eval()
    x = torch.randn(2, 3, *model.data_config["input_size"][1:])
    torch.testing.assert_close(loaded(x), model.model(x))
    monkeypatch.setattr(model_folder, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setattr(model_folder, "SHIPPED", cfgs)
    assert load_model(f"{name}.bad").path == tmp_path / "weights" / f"{name}.bad"
    main(["predict", "--json", str(pictures / "a.jpg")])
    printed = capsys.readouterr()
    assert f"{name}.good tells apart, and nothing else: cat, dog, emu" in printed.err
    assert set(json.loads(printed.out)["labels"]) == {"cat", "dog", "emu"}


def test_without_weights_in_the_package_a_model_must_be_named(monkeypatch, capsys):
    monkeypatch.setattr(model_folder, "SHIPPED", {})
    with pytest.raises(SystemExit) as stop:
        main(["predict", "x.jpg"])
    errors = capsys.readouterr().err.strip()
    assert stop.value.code == 1 and "--model runs/NAME" in errors and len(errors.splitlines()) == 1


def test_a_run_becomes_weights_of_the_package_with_a_card(trained, tmp_path, monkeypatch):
    folder = ship.ship(RunFolder(trained), "stt_nano.cifar10", tmp_path)
    shipped, original = load_model(folder), load_model(trained)
    x = torch.randn(4, 3, *original.data_config["input_size"][1:])
    torch.testing.assert_close(shipped.model(x), original.model(x), rtol=1e-2, atol=1e-2)
    assert shipped.classes == original.classes
    small, large = (f.path.joinpath("model.safetensors").stat().st_size for f in (shipped, original))
    assert small < 0.6 * large
    text = (folder / "README.md").read_text()
    own = json.loads((trained / "evaluation.json").read_text())["validation"]["top1"]
    assert "cat, dog, emu" in text and f"{100 * own:.2f} %" in text and "must not be used" in text
    assert str(trained.parent) not in text + (folder / "config.json").read_text()
    monkeypatch.setattr(ship, "LIMIT", 1000)
    with pytest.raises(SystemExit, match="more than"):
        ship.ship(RunFolder(trained), "stt_nano.cifar10", tmp_path)
    assert folder.exists()


def test_names_without_a_tag_stay_without_weights():
    for name in family.VARIANTS:
        cfg = timm.get_pretrained_cfg(name)
        assert cfg.num_classes == 1000 and not cfg.has_weights


@pytest.mark.filterwarnings("ignore")
def test_transformers_loads_it_without_remote_code(trained, pictures):
    import transformers

    folder = str(trained / "model")
    model = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    ours = load_model(trained)
    x = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(model(x).logits, ours.model(x))
    answer = transformers.pipeline("image-classification", model=folder)(str(pictures / "a.jpg"))
    row = next(iter(Predictor.of(ours).predict([pictures / "a.jpg"], topk=3)))
    assert [a["label"] for a in answer] == row.labels
    np.testing.assert_allclose([a["score"] for a in answer], row.probabilities, rtol=1e-3, atol=1e-4)


def test_evaluate_repeats_the_runs_own_figures(trained, tmp_path, capsys):
    main(["evaluate", "--model", str(trained), "--out", str(tmp_path / "out")])
    figures = json.loads((tmp_path / "out" / "evaluation-val.json").read_text())
    expected = json.loads((trained / "evaluation.json").read_text())["validation"]
    assert figures["top1"] == expected["top1"] and figures["confusion"] == expected["confusion"] != []
    assert figures["images"] == 3 and set(figures["per_class"]) == {"cat", "dog", "emu"}
    assert (tmp_path / "out" / "confusion-val.png").exists()
    assert "calibration" in capsys.readouterr().out


def test_evaluate_writes_nothing_into_the_package(tmp_path, monkeypatch):
    make_folder(tmp_path / "data" / "train", classes=("cat", "dog"), per_class=2)
    make_folder(tmp_path / "data" / "test", classes=("cat", "dog"), per_class=2)
    monkeypatch.chdir(tmp_path)
    packed = sorted(WEIGHTS.rglob("*"))
    main(["evaluate", "--model", "stt_micro.cifar10", "--data", str(tmp_path / "data")])
    assert (tmp_path / "runs" / "stt_micro.cifar10" / "evaluation-test.json").exists()
    assert sorted(WEIGHTS.rglob("*")) == packed


def test_evaluation_maps_classes_by_name(trained, tmp_path):
    make_folder(tmp_path / "data" / "train", classes=("dog", "emu"), per_class=2)
    make_folder(tmp_path / "data" / "val", classes=("emu",), per_class=6)
    predictor = Predictor.of(load_model(trained))
    result = evaluate_source(predictor, open_splits(str(tmp_path / "data")).val, progress=False)
    assert result.confusion_matrix().sum(1).tolist() == [0, 0, 6]
    assert result.missing_classes == ["cat", "dog"]
    make_folder(tmp_path / "other", classes=("dog", "yak"), per_class=2)
    with pytest.raises(EvaluationError, match="yak"):
        evaluate_source(predictor, open_splits(str(tmp_path / "other")).train, progress=False)


def test_measured_figures_agree_with_plain_formulas():
    rng = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(400, 7, generator=rng) * 3, torch.randint(0, 6, (400,), generator=rng)
    result = Classification().figures(logits, targets, list("abcdefg"))
    hit = logits.argmax(1) == targets
    assert result.top1 == pytest.approx(hit.float().mean().item())
    rank = (logits > logits.gather(1, targets[:, None])).sum(1)
    assert result.top5 == pytest.approx((rank < 5).float().mean().item())
    assert result.per_class["c"].recall == pytest.approx(hit[targets == 2].float().mean().item())
    assert result.per_class["g"].recall is None and result.missing_classes == ["g"]
    confidence, error = logits.softmax(1).amax(1), 0.0
    for low in np.linspace(0, 1, 16)[:-1]:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            error += inside.float().mean() * (confidence[inside].mean() - hit[inside].float().mean()).abs()
    assert result.calibration_error == pytest.approx(float(error), abs=1e-4)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match="no trained model"):
        load_model(tmp_path)


def test_a_failed_save_leaves_the_old_model(trained, tmp_path, monkeypatch):
    ours = load_model(trained)
    copied = replace(ours, path=tmp_path / "model")
    save_model(copied)
    before = (tmp_path / "model" / "model.safetensors").read_bytes()

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("supertokenvit.run_folder.sync", full)
    with pytest.raises(OSError, match="No space"):
        save_model(copied)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 0, "usage"),
        (["--help"], 0, "check-data"),
        (["trian"], 2, "did you mean train"),
        (["predict", "--model", "nowhere", "x.jpg"], 1, "no trained model"),
        (["train"], 2, "--data is missing"),
        (["models"], 0, "stt_s25"),
    ],
)
def test_the_command_answers_in_one_line(words, code, said, capsys):
    if code:
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == code
        printed = capsys.readouterr().err
        assert len(printed.strip().splitlines()) == 1
    else:
        main(words)
        printed = capsys.readouterr().out
    assert said in printed


@pytest.mark.parametrize(
    ("option", "value", "kinds"),
    [
        ("batch_size", "1.5", "a whole number or null"),
        ("tta", "twice", "none or flip or shift"),
        ("hflip", "maybe", "a number or alternating or null"),
        ("skip_damaged", "maybe", "true or false"),
        ("model_args", "deep", "names with values, as {'name': 1}"),
    ],
)
def test_a_value_of_the_wrong_kind_is_told_in_plain_words(option, value, kinds, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text(f"{option}: {value}\n")
    for words in ([f"--{option}", value], ["--recipe", str(tmp_path / "recipe.yaml")]):
        with pytest.raises(SystemExit) as stop:
            main(["train", "--data", "digits", *words])
        assert stop.value.code == 2
        assert f"--{option} {value}: must be {kinds} (" in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_no_insides_of_python(verb, capsys):
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    assert "<function" not in capsys.readouterr().out


def test_every_option_has_a_line_of_help(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name in Recipe.__dataclass_fields__:
        assert f"--{name}" in text
    assert "Fraction of the steps in which the learning rate rises" in text


def test_multi_label_from_a_table_of_labels(tmp_path):
    data = make_folder(tmp_path / "data", classes=("x",), per_class=30) / "x"
    lines = [
        f"{p.name},{'sea|sky' if i % 2 else 'sky' if i % 3 else 'sea'}" for i, p in enumerate(sorted(data.iterdir()))
    ]
    (data / "labels.csv").write_text("\n".join(["file,labels", *lines]))
    options = {"data": str(data), "out": str(tmp_path / "run"), "mixup": 0.0, "cutmix": 0.0, "class_weights": "auto"}
    run = train_recipe(Recipe(**(TINY | options)), console=Console(quiet=True)).path
    loaded = load_model(run)
    assert loaded.card.task == "multi-label"
    row = next(iter(Predictor.of(loaded).predict(sorted(data.glob("*.png"))[:1])))
    assert set(row.labels) == {"sea", "sky"}
    figures = json.loads((run / "evaluation.json").read_text())["validation"]
    assert 0 <= figures["mean_average_precision"] <= 1 and figures["f1"] is not None and figures["top1"] is None


@pytest.mark.parametrize(
    ("verb", "option"), [("train", "--accumulate"), ("evaluate", "--batch_size"), ("predict", "--img")]
)
def test_too_little_memory_names_an_option_that_the_verb_has(verb, option, monkeypatch, capsys):
    def run(words):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore")

    monkeypatch.setattr(f"supertokenvit.verbs.{verb}.run", run)
    with pytest.raises(SystemExit) as ended:
        main([verb])
    said = capsys.readouterr().err
    assert ended.value.code == 1 and option in said and said.count("\n") == 1
    assert verb == "train" or "--accumulate" not in said
