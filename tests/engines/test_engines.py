"""Networks in every engine answer as the model does, and leave the model as it was."""

import sys

import numpy as np
import pytest
import timm
import torch

from supertokenvit.engines.graphs import export_onnx, quantise_openvino, stacked_products
from supertokenvit.engines.onnx_engine import OnnxNetwork
from supertokenvit.engines.openvino_engine import OpenVinoNetwork
from supertokenvit.engines.packages import EngineError, need
from supertokenvit.engines.torch_engine import TorchNetwork

CPU = torch.device("cpu")
SMALL = {"width": 16, "heads": 2, "local_layers": 1, "global_layers": 1}


def nano(**changes):
    torch.manual_seed(0)
    return timm.create_model("stt_nano", num_classes=3, **(SMALL | changes))


def images(*size, batch=2):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


def test_a_network_answers_in_eval_mode_and_leaves_each_module_as_it_was():
    model = nano(drop_rate=0.5).train()
    model.stem.eval()  # as a training with a frozen stem has it
    flags = {name: module.training for name, module in model.named_modules()}
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
    answer = TorchNetwork(model, CPU)(images(32, 32))
    assert {name: module.training for name, module in model.named_modules()} == flags
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in model.named_buffers())
    torch.testing.assert_close(answer, model.eval()(images(32, 32)))


def test_a_part_that_learns_in_a_model_in_eval_mode_learns_nothing_from_an_answer():
    """Its BatchNorm used to take its statistics from the images that it answered for."""
    model = timm.create_model("resnet18", num_classes=3).eval()
    with torch.no_grad():
        expected = model(images(32, 32))
    model.layer4.train()
    flags = {name: module.training for name, module in model.named_modules()}
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.no_grad():
        torch.testing.assert_close(TorchNetwork(model, CPU)(images(32, 32)), expected)
    assert {name: module.training for name, module in model.named_modules()} == flags
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in model.named_buffers())


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
def test_a_compiled_network_answers_as_the_model_does(training):
    expected = nano().eval()(images(32, 32))
    model = nano().train(training)
    torch.testing.assert_close(TorchNetwork(model, CPU, compiled=True)(images(32, 32)), expected, rtol=1e-4, atol=1e-4)
    assert model.training == training


def test_an_error_of_the_model_leaves_its_mode_too():
    model = nano().train()
    with pytest.raises(RuntimeError):
        TorchNetwork(model, CPU)(torch.randn(2, 5, 32, 32))
    assert model.training and model.stem.training


@pytest.mark.parametrize("training", [False, True])
def test_gradients_are_kept_unless_the_caller_turns_them_off(training):
    network, x = TorchNetwork(nano().train(training), CPU), images(32, 32).requires_grad_()
    network(x).sum().backward()
    expected = torch.autograd.grad(nano().eval()(x).sum(), x)[0]
    torch.testing.assert_close(x.grad, expected)
    with torch.no_grad():
        assert not network(x).requires_grad


def test_bf16_answers_nearly_the_same_in_float32():
    exact, rounded = (TorchNetwork(nano().eval(), CPU, precision)(images(32, 32)) for precision in ("fp32", "bf16"))
    assert rounded.dtype == torch.float32 and not torch.equal(exact, rounded)
    torch.testing.assert_close(exact, rounded, rtol=0.1, atol=0.02)


@pytest.mark.parametrize("name", ["stt", "resnet18"])
def test_a_graph_answers_as_the_model_does(name, tmp_path):
    model = (nano() if name == "stt" else timm.create_model("resnet18", num_classes=3)).eval()
    x = images(32, 32)
    export_onnx(model, x, tmp_path / "model.onnx")
    with torch.no_grad():
        expected = model(x)
    for network in (OnnxNetwork(tmp_path / "model.onnx", 1), OpenVinoNetwork(tmp_path / "model.onnx", 1, x.shape)):
        torch.testing.assert_close(network(x), expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(network.run(x.numpy()), network(x).numpy())


@pytest.mark.slow
def test_a_graph_for_every_size_answers_as_the_model_does_at_every_size(tmp_path):
    """Its division used to round down, and sizes that do not fill windows were answered wrongly."""
    model, path = nano(local_layers=2).eval(), str(tmp_path / "any.onnx")
    dims = {0: torch.export.Dim("b", max=64), 2: torch.export.Dim("h", max=4096), 3: torch.export.Dim("w", max=4096)}
    torch.onnx.export(
        model, (images(40, 56),), path, dynamo=True, external_data=False, verbose=False, dynamic_shapes=(dims,)
    )
    networks = OnnxNetwork(path, 1), OpenVinoNetwork(path, 1)
    for size in ((32, 32), (16, 16), (33, 37), (20, 28), (128, 40), (4, 4), (1, 1), (15, 70), (5, 100), (64, 64)):
        x = images(*size, batch=3)
        with torch.no_grad():
            expected = model(x)
        for network in networks:
            torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-5, msg=f"{size} {network}")


def test_a_package_that_is_not_there_is_one_line():
    with pytest.raises(EngineError, match=r"no_such_engine is not installed: pip install 'supertokenvit\[export\]'"):
        need("no_such_engine")


def test_every_engine_names_the_package_that_it_lacks(monkeypatch, tmp_path):
    graph = tmp_path / "model.onnx"
    needs = {
        "onnxscript": lambda: export_onnx(nano(), images(32, 32), graph),
        "onnxruntime": lambda: OnnxNetwork(graph, 1),
        "openvino": lambda: OpenVinoNetwork(graph, 1),
        "nncf": lambda: quantise_openvino(graph, graph, []),
        "onnx": lambda: stacked_products(graph),
    }
    for package, call in needs.items():
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
        with pytest.raises(EngineError, match=f"^{package} is not installed: pip install"):
            call()
