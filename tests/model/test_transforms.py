"""What torch and timm do to a model as a whole: folding, compiling, exporting, functional calls."""

import pytest
import torch
from timm.models import reparameterize_model
from torch import nn
from torch._dynamo.testing import CompileCounter

from .examples import PADDED, SIZES, images, tiny


@SIZES
def test_folding_the_stems_batch_norms_changes_nothing(size):
    model = tiny(stem_convs=2, stem_order="behind")
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                module.weight.normal_(1, 0.2)
                module.bias.normal_()
    folded = reparameterize_model(model)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    torch.testing.assert_close(folded(images(*size)), model(images(*size)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(16, 16), PADDED], ids=str)
def test_folding_layer_scales_changes_nothing(size):
    model, x = tiny(layer_scale=0.5, mixer="attention", global_mixer="conv").double(), images(*size).double()
    for name, weight in model.named_parameters():
        nn.init.normal_(weight, std=0.5 if name.endswith("gamma") else 0.1)
    folded = reparameterize_model(model)
    assert not [name for name, _ in folded.named_parameters() if "gamma" in name]
    torch.testing.assert_close(folded(x), model(x))
    assert [name for name, _ in model.named_parameters() if "gamma" in name]  # the model itself is as it was


@pytest.mark.parametrize("size", [(16, 16), PADDED], ids=str)
def test_compiles_as_one_graph(size):
    model, x = tiny(), images(*size)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), model(x))
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x))


def test_a_batch_of_another_size_compiles_nothing_anew():
    model, counter = tiny(), CompileCounter()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    with torch.no_grad():
        for batch in (3, 2, 7, 15):  # torch's own convolution has another kernel from 16 on
            x = images(16, 16, batch=batch)
            torch._dynamo.mark_dynamic(x, 0)
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-6)
    assert counter.frame_count == 1


@pytest.mark.slow
def test_compiles_three_times_for_all_sizes():
    """For the size of the learned grids, for those that fill whole windows, and for all others."""
    model, counter = tiny(), CompileCounter()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=counter)
    with torch.no_grad():
        for size in ((16, 16), (24, 40), PADDED, (32, 48), (13, 30), (17, 50), (9, 70)):
            x = images(*size, batch=3)
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-6)
    assert counter.frame_count == 3


@pytest.mark.slow
def test_exports_with_dynamic_batch_height_and_width():
    model = tiny()
    dims = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with torch.no_grad():
        exported = torch.export.export(model, (images(24, 40),), dynamic_shapes=(dims,)).module()
        for batch, size in ((3, (16, 16)), (2, (24, 40)), (1, PADDED), (5, (64, 9)), (1, (113, 150))):
            x = images(*size, batch=batch)
            torch.testing.assert_close(exported(x), model(x), rtol=1e-4, atol=1e-5)
        # torch.export holds that a dimension of size 1 is another graph: it says so, and never answers wrongly
        for size in ((8, 8), (3, 24)):
            with pytest.raises(AssertionError, match="Guard failed"):
                exported(images(*size))


@pytest.mark.slow
def test_a_graph_of_one_size_has_neither_padding_nor_resizing():
    with torch.no_grad():
        graph = torch.export.export(tiny(), (images(16, 16),)).graph
    names = " ".join(node.name for node in graph.nodes)
    assert "attention" in names and not any(op in names for op in ("pad", "upsample", "masked_fill"))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@SIZES
def test_functional_call_and_vmap_work(size):
    model, x = tiny(), images(*size, batch=3)
    weights = {name: p.detach() for name, p in model.named_parameters()}

    def logits(weights, image):
        return torch.func.functional_call(model, weights, (image[None],))[0]

    each = torch.func.vmap(logits, (None, 0))
    torch.testing.assert_close(each(weights, x), model(x), rtol=1e-4, atol=1e-6)
    with torch.no_grad():  # where resized grids are kept: not those of other weights
        expected = model(x)
        assert not torch.allclose(each({name: 2 * w for name, w in weights.items()}, x), expected)
        assert torch.equal(model(x), expected)

    def loss(weights, image):
        return logits(weights, image).square().sum()

    gradients = torch.func.vmap(torch.func.grad(loss), (None, 0))(weights, x)  # of each image by itself
    model(x).square().sum().backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(gradients[name].sum(0), p.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@torch.no_grad()
def test_an_ensemble_of_weights_runs_under_vmap():
    models, x = [tiny(seed) for seed in range(3)], images(*PADDED)
    weights, buffers = torch.func.stack_module_state(models)

    def logits(weights, buffers):
        return torch.func.functional_call(models[0], (weights, buffers), (x,))

    together = torch.func.vmap(logits)(weights, buffers)
    torch.testing.assert_close(together, torch.stack([model(x) for model in models]), rtol=1e-4, atol=1e-6)


class LowRank(nn.Module):
    """A projection with something learned beside it, as LoRA's."""

    def __init__(self, base):
        super().__init__()
        self.base, self.weight, self.bias = base, base.weight, base.bias
        self.down, self.up = nn.Linear(base.in_features, 2), nn.Linear(2, base.out_features)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


def test_a_replaced_projection_counts_in_every_layer():
    model, x = tiny(), images(16, 16)
    merged = tiny()
    for one, other in zip(list(model.modules()), list(merged.modules()), strict=True):
        if hasattr(one, "qkv"):
            added = LowRank(one.qkv)
            with torch.no_grad():
                other.qkv.weight += added.up.weight @ added.down.weight
                other.qkv.bias += added.up.weight @ added.down.bias + added.up.bias
            one.qkv = added
    assert not torch.allclose(model(x), tiny()(x), atol=1e-4)
    torch.testing.assert_close(model(x), merged(x), rtol=1e-4, atol=1e-5)
    gradients = torch.autograd.grad(model(x).sum(), [m.up.weight for m in model.modules() if isinstance(m, LowRank)])
    assert all(gradient.any() for gradient in gradients)


def test_a_hook_on_a_projection_is_called_in_every_layer_and_changes_nothing():
    model, x, seen = tiny(), images(16, 16), []
    expected = model(x)
    for name, module in model.named_modules():
        if name.endswith("qkv"):
            module.register_forward_hook(lambda module, inputs, output, name=name: seen.append(name))
    torch.testing.assert_close(model(x), expected)
    assert seen == [name for name, _ in model.named_modules() if name.endswith("qkv")]


@pytest.mark.filterwarnings("ignore:torch")  # it is deprecated, and people use it
def test_dynamic_quantisation_runs_and_stays_near():
    model, x = tiny(width=32), images(16, 16)
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    torch.testing.assert_close(quantised(x), model(x), rtol=0.1, atol=0.05)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # of modules that take no tensor
def test_gradients_pass_hooks_on_every_module():
    model, x, seen = tiny().train(), images(16, 16), set()
    expected = torch.autograd.grad(model(x).sum(), list(model.parameters()), allow_unused=True)
    for name, module in model.named_modules():
        module.register_full_backward_hook(lambda module, sent, got, name=name: seen.add(name))
    model.requires_grad_()
    found = torch.autograd.grad(model(x.requires_grad_()).sum(), list(model.parameters()), allow_unused=True)
    torch.testing.assert_close(found, expected)
    assert {"local_layers.0.block", "local_layers.1.block", "local_layers.0.mixer"} <= seen
