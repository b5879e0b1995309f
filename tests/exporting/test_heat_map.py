"""The graph of heat maps gives the maps that `explain` gives, or there is none."""

import copy
from itertools import islice

import pytest
import timm
import torch

from supertokenvit.explaining.explanation import seen_both_ways
from supertokenvit.explaining.methods import composed_gradients
from supertokenvit.exporting import heat_map
from supertokenvit.exporting.heat_map import FILE, add_map, traced
from supertokenvit.exporting.parity import photographs
from supertokenvit.model_folder import ModelCard, TrainedModel
from supertokenvit.prediction import Predictor

PICTURES = [picture.crop((0, 0, 60 + 40 * number, 90)) for number, picture in enumerate(islice(photographs(), 4))]


def predictor_of(tmp_path, name="stt_nano", tta="flip", side=32, **model_args):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3, **model_args).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    config = timm.data.resolve_data_config({}, model=model)
    config["input_size"] = (3, side, side)
    return Predictor.of(TrainedModel(model, ["ant", "bee", "cow"], config, ModelCard(tta=tta), tmp_path / "model"))


SMALL = {"width": 32, "heads": 2, "global_layers": 2}


@pytest.mark.parametrize("tta", ["none", "flip"])
@pytest.mark.parametrize("mixer", ["none", "conv"])
def test_the_traced_maps_are_those_of_explain_for_any_image_and_class(tmp_path, tta, mixer):
    model = predictor_of(tmp_path, tta=tta, global_mixer=mixer, **SMALL).network.model
    maps = traced(copy.deepcopy(model), (32, 32), tta)
    for seed in range(3):
        torch.manual_seed(seed)
        images, target = torch.randn(1, 3, 32, 32), torch.tensor([seed])
        wanted = seen_both_ways(composed_gradients, model, images, target, tta).patches
        torch.testing.assert_close(maps(images, target), wanted)
        assert wanted.abs().max() > 0


@pytest.mark.slow
def test_the_file_gives_the_maps_of_photographs_and_says_what_it_was_checked_on(tmp_path):
    said = []
    checks = add_map(tmp_path, predictor_of(tmp_path, **SMALL), PICTURES, said.append)
    assert len(checks) == 2 and all(check.passed for check in checks) and (tmp_path / FILE).exists()
    assert said == ["exporting its heat maps, and checking them"]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["weights", "box"])
def test_a_wrong_graph_is_not_kept(tmp_path, monkeypatch, fault):
    predictor, write = predictor_of(tmp_path, **SMALL), heat_map.write_map

    def wrong(exported, path):
        if fault == "weights":
            with torch.no_grad():
                next(p for p in exported.maps.parameters() if p.ndim == 2).mul_(1.5)
        else:
            exported.resize.box = lambda photographs: torch.tensor([0.0, 0.0, 1.0, 1.0])
        write(exported, path)

    monkeypatch.setattr(heat_map, "write_map", wrong)
    said = []
    assert add_map(tmp_path, predictor, PICTURES, said.append) == []
    assert said[-1].startswith("no heat maps: FAILED") and not (tmp_path / FILE).exists()


def test_what_torch_cannot_export_is_said_and_leaves_no_file(tmp_path, monkeypatch):
    def broken(exported, path):
        path.write_bytes(b"half a file")
        raise RuntimeError("no operator\nmore")

    monkeypatch.setattr(heat_map, "write_map", broken)
    said = []
    assert add_map(tmp_path, predictor_of(tmp_path, **SMALL), PICTURES, said.append) == []
    assert said[-1] == "no heat maps: they cannot be exported (no operator)" and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "args", "reason"),
    [
        ("resnet18", {}, "the model has no class token that reads Super tokens"),
        (
            "stt_nano",
            SMALL | {"img_size": 30, "side": 30},
            "4 pixels of a patch do not divide the 30 of an image",
        ),
        (
            "stt_nano",
            SMALL | {"global_pool": "avg"},
            "the model has no class token that reads Super tokens",
        ),
    ],
)
def test_models_without_heat_maps_say_why(tmp_path, name, args, reason):
    said = []
    assert add_map(tmp_path, predictor_of(tmp_path, name, **args), PICTURES, said.append) == [] and said == [
        f"no heat maps: {reason}"
    ]
