"""Any model of timm's can be trained, and weights that are there are what a run starts from."""

from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from supertokenvit.errors import UserError
from supertokenvit.model_folder import ModelCard, TrainedModel, save_model
from supertokenvit.training.recipe import Recipe, RecipeError
from supertokenvit.training.starting_model import (
    build,
    checkpoint_gradients,
    freeze,
    size_of_start,
    starting_model,
    try_out,
)

CLASSES = ["bird", "cat"]
MODELS = {
    "deit_tiny_patch16_224": {"depth": 1, "embed_dim": 32, "num_heads": 2},
    "swin_tiny_patch4_window7_224": {"depths": [1, 1], "num_heads": [1, 2], "embed_dim": 16},
    "convnext_atto": {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]},
    "densenet121": {"growth_rate": 4, "block_config": [1, 1]},
    "resnet10t": {},
    "efficientnet_lite0": {},
    "stt_nano": {"width": 32, "heads": 2},
}


@pytest.fixture(scope="module", params=MODELS)
def recipe(request):
    return Recipe(model=request.param, model_args=MODELS[request.param], img_size=64)


@pytest.fixture
def saved(recipe, tmp_path):
    """A trained model of ours in a folder, and the model."""
    model, named = starting_model(recipe, CLASSES)
    config = timm.data.resolve_data_config({}, model=model) | {"input_size": (3, 64, 64)}
    save_model(TrainedModel(model, CLASSES, config, ModelCard(), tmp_path / "model"))
    return model, replace(named, model=None, model_args={}, img_size=None, init=str(tmp_path))


def same(model, other):
    """Names of the weights that are equal in both."""
    theirs = other.state_dict()
    return {name for name, weight in model.state_dict().items() if torch.equal(weight, theirs[name])}


def test_every_family_is_built_for_the_size_wanted(recipe):
    model = build(recipe, 2)
    assert model.eval()(torch.randn(1, 3, 64, 64)).shape == (1, 2)


def test_init_takes_all_weights_but_the_classifier_unless_the_classes_are_the_same(saved):
    trained, recipe = saved
    classifier = trained.pretrained_cfg["classifier"]
    whole = set(trained.state_dict())
    assert same(trained, starting_model(recipe, CLASSES)[0]) == whole
    head = {f"{classifier}.weight"}
    for classes in (["dog", "cat"], ["bird", "cat", "dog"]):
        model, named = starting_model(recipe, classes)
        body = {name for name in whole if not name.startswith(classifier)}
        theirs = model.state_dict()
        assert all(torch.equal(trained.state_dict()[name], theirs[name]) for name in body)
        if len(classes) == 2:
            assert not head & same(trained, model)
        assert theirs[f"{classifier}.weight"].shape[0] == len(classes)
        assert model.eval()(torch.randn(1, 3, 64, 64)).shape == (1, len(classes))
        again = build(named, len(classes))  # as when the run is resumed
        assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in theirs.items()}


def test_init_keeps_the_models_own_arguments(saved):
    _, recipe = saved
    named = starting_model(recipe, CLASSES)[1]
    starting_model(replace(named, init=recipe.init), CLASSES)  # a recipe of a run folder has them written out
    with pytest.raises(RecipeError, match="leave model_args out"):
        starting_model(replace(recipe, model_args={"depth": 7}), CLASSES)
    with pytest.raises(RecipeError, match="leave model out"):
        starting_model(replace(recipe, model="vgg11"), CLASSES)


def test_init_takes_timms_pretrained_weights(monkeypatch, tmp_path):
    name = "resnet10t.c3_in1k"
    source = timm.create_model(name)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    # in the place of the hub
    create, overlay = timm.create_model, {"file": str(tmp_path / "weights.pth")}
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: create(*a, pretrained_cfg_overlay=overlay, **k))
    model, named = starting_model(Recipe(init=name), CLASSES)
    weights, theirs = model.state_dict(), source.state_dict()
    assert all(torch.equal(weights[key], theirs[key]) for key in weights if not key.startswith("fc."))
    assert weights["fc.weight"].shape[0] == 2
    assert named.model == name and named.img_size == 176
    imagenet = timm.data.ImageNetInfo("imagenet-1k").label_names()
    for classes in (imagenet, [f"class {k}" for k in range(1000)]):
        started = starting_model(Recipe(init=name), classes)[0]
        assert torch.equal(started.fc.weight, source.fc.weight) == (classes is imagenet)


@pytest.mark.parametrize("init", ["resnet18.no_such_tag", "stt_t", "resnet10t.foo"])
def test_weights_that_timm_has_not_are_refused(init):
    with pytest.raises(RecipeError, match="no weights of that name"):
        starting_model(Recipe(init=init), CLASSES)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "densenet121", "drop_path": 0.1}, "drop_path_rate"),
        ({"model": "no_such_model"}, "Unknown model"),
        ({"model": "resnet18.no_such_tag"}, "no_such_tag"),
        ({"model": "stt_nano", "model_args": {"widht": 1}}, "widht"),
    ],
)
def test_what_timm_cannot_make_is_one_line(changes, said):
    with pytest.raises(RecipeError, match=said):
        starting_model(Recipe(img_size=32, **changes), CLASSES)


def kept_for_backward(forward):
    """Sizes of the tensors that autograd keeps, and the result."""
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        return sizes, forward()


def test_activations_are_computed_again_where_the_model_can():
    x, results = torch.randn(4, 3, 32, 32), []
    for again in (False, True):
        torch.manual_seed(0)
        recipe = Recipe(model="stt_nano", img_size=32)
        model = build(recipe, 2)
        if again:
            checkpoint_gradients(recipe, model)
        sizes, loss = kept_for_backward(lambda model=model: model(x).square().sum())
        loss.backward()
        results.append((sum(sizes), {name: p.grad for name, p in model.named_parameters()}))
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-4, atol=1e-5)
    assert results[1][0] < 0.7 * results[0][0]
    with pytest.raises(RecipeError, match="densenet has none|vgg11 has none"):
        checkpoint_gradients(Recipe(model="vgg11"), timm.create_model("vgg11"))


def test_preprocessing_of_the_tag_goes_with_the_weights(tmp_path):
    model = timm.create_model("tf_efficientnet_b0.ap_in1k", num_classes=2)
    config = timm.data.resolve_data_config({}, model=model)
    assert config["mean"] != timm.data.resolve_data_config({}, model=timm.create_model("tf_efficientnet_b0"))["mean"]
    save_model(TrainedModel(model, CLASSES, config, ModelCard(), tmp_path))
    tuned, _ = starting_model(Recipe(init=str(tmp_path)), ["dog", "fish"])
    assert timm.data.resolve_data_config({}, model=tuned)["mean"] == config["mean"]


@pytest.mark.parametrize("name", ["stt_nano", "convnext_atto", "deit_tiny_distilled_patch16_224"])
def test_a_frozen_backbone_leaves_the_classifier_and_its_dropout(name):
    model = timm.create_model(name, num_classes=2, drop_rate=0.5)
    frozen = freeze(model, "backbone")
    model.train()
    for part in frozen:
        part.eval()
    heads = model.get_classifier()
    heads = heads if isinstance(heads, tuple) else (heads,)
    learned = {id(p) for head in heads for p in head.parameters()}
    assert {id(p) for p in model.parameters() if p.requires_grad} == learned
    assert any(isinstance(m, nn.Dropout) and m.p == 0.5 and m.training for m in model.modules())
    norms = [m for m in model.modules() if isinstance(m, (nn.BatchNorm2d, nn.LayerNorm))]
    assert norms and not any(norm.training for norm in norms)


def test_arguments_that_timm_drops_are_refused():
    for name, args in (("stt_t", {"layer_scale": None}), ("convnext_atto", {"ls_init_value": None})):
        with pytest.raises(RecipeError, match=f"timm drops {next(iter(args))}=null"):
            starting_model(Recipe(model=name, model_args=args, img_size=32), CLASSES)
    _, recipe = starting_model(Recipe(model="stt_nano", img_size=32), CLASSES)
    assert recipe.model_args["layer_scale"] is None  # as it is without, so that a run's own recipe repeats it
    starting_model(recipe, CLASSES)


@pytest.mark.parametrize("there", [2, 3, 7])
def test_a_file_of_weights_is_a_start_for_the_model_that_is_named(recipe, tmp_path, there):
    """Its classes have no names, so that the classifier is new, also with as many of them."""
    trained, _ = starting_model(recipe, [str(k) for k in range(there)])
    file = tmp_path / "weights.safetensors"
    save_file({name: weight.contiguous() for name, weight in trained.state_dict().items()}, file)
    model, named = starting_model(replace(recipe, init=str(file)), CLASSES)
    classifier = trained.pretrained_cfg["classifier"]
    body = {name for name in trained.state_dict() if not name.startswith(classifier)}
    equal = {name for name in body if torch.equal(trained.state_dict()[name], model.state_dict()[name])}
    assert equal == body and named.init == str(file) and named.img_size == 64
    assert f"{classifier}.weight" not in (same(model, trained) if there == 2 else {})
    again = build(named, 2)
    again.load_state_dict(model.state_dict())


@pytest.mark.parametrize(
    ("file", "model", "said"),
    [
        ("w.safetensors", None, "does not say of which model: name it with --model"),
        ("w.safetensors", "resnet10t", "its weights do not fit"),
        ("w.pth", "stt_nano", "weights are read from .safetensors files and run folders only"),
        ("broken.safetensors", "stt_nano", "not readable as a .safetensors file"),
        ("hf-hub:nobody/nothing", None, "cannot be fetched from the Hugging Face Hub"),
    ],
)
def test_a_start_that_cannot_be_is_one_line(tmp_path, file, model, said, monkeypatch):
    def offline(*args, **kwargs):
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    save_file({"x.weight": torch.zeros(2)}, tmp_path / "w.safetensors")
    (tmp_path / "w.pth").write_bytes(b"")
    (tmp_path / "broken.safetensors").write_bytes(b"half")
    init = file if file.startswith("hf-hub:") else str(tmp_path / file)
    with pytest.raises(UserError, match=said) as error:
        starting_model(Recipe(model=model, init=init, img_size=64), CLASSES)
    assert "\n" not in str(error.value)


def test_a_model_of_the_hub_is_a_start(saved, monkeypatch, tmp_path):
    trained, recipe = saved
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download",
        lambda repository, file, revision: (asked.append((repository, revision)), str(tmp_path / "model" / file))[1],
    )
    model, named = starting_model(replace(recipe, init="hf-hub:me/mine@v1"), CLASSES)
    assert same(trained, model) == set(trained.state_dict()) and set(asked) == {("me/mine", "v1")}
    assert size_of_start("hf-hub:me/mine") == 64


def test_weights_with_their_config_beside_them_are_a_whole_model(saved, tmp_path):
    trained, recipe = saved
    file = str(tmp_path / "model" / "model.safetensors")
    assert same(trained, starting_model(replace(recipe, init=file), CLASSES)[0]) == set(trained.state_dict())


@pytest.mark.parametrize(
    ("model", "side", "said"),
    [
        ("convnext_atto", 20, "img_size=20: convnext_atto cannot take images of this size .*; its own is 224"),
        ("maxvit_rmlp_pico_rw_256", 112, "cannot take images of this size .*; its own is 256"),
    ],
)
def test_a_size_that_a_model_cannot_take_is_one_line(model, side, said):
    recipe = Recipe(model=model, img_size=side, batch_size=8, model_args=MODELS.get(model, {}))
    with pytest.raises(RecipeError, match=said) as error:
        try_out(build(recipe, 2), recipe, 8, torch.device("cpu"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["resnet10t", "stt_nano"])
def test_trying_a_model_out_leaves_everything_as_it_was(name):
    recipe = Recipe(model=name, model_args=MODELS[name], img_size=64, batch_size=8, dropout=0.5)
    model = build(recipe, 2).train()
    before, drawn = {k: v.clone() for k, v in model.state_dict().items()}, torch.random.get_rng_state()
    try_out(model, recipe, 2, torch.device("cpu"))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items()) and model.training
    assert torch.equal(torch.random.get_rng_state(), drawn)
    if name == "resnet10t":  # at 32 px its last map has one pixel
        with pytest.raises(RecipeError, match="batch_size=8 in accumulate=8 parts: resnet10t sees a single image"):
            try_out(model, replace(recipe, accumulate=8, img_size=32), 1, torch.device("cpu"))
