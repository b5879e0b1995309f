"""This module counts what a model computes: parameters, MACs, and the shapes of its matrix products."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.layers import set_fused_attn, use_fused_attn
from timm.models import get_pretrained_cfg, reparameterize_model
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ..model_folder import is_model_folder, load_model
from .options import BenchmarkError, Contestant

Product = tuple[int, int, int, int]
aten = torch.ops.aten


@dataclass(frozen=True)
class Cost:
    """Holds the cost of one inference of a batch.

    Args:
        parameters: Parameters of the model.
        macs: Multiply-accumulates of the batch, attention included.
        products: How often each matrix product [n, rows, inner] x [n, inner, columns] is computed. Convolutions count
            as products of patches and kernels; depthwise ones are left out.
    """

    parameters: int
    macs: int
    products: dict[Product, int]


def own_size(contestant: Contestant) -> int:
    """Returns the side of the images that a model is made for."""
    if contestant.is_file:
        raise BenchmarkError(f"{contestant.model}: say the --img_size it takes")
    if is_model_folder(contestant.model):
        return load_model(contestant.model).data_config["input_size"][-1]
    return get_pretrained_cfg(contestant.model).input_size[-1]  # type: ignore[union-attr]


def make_model(contestant: Contestant, img_size: int) -> nn.Module:
    """Makes the torch model in eval mode, built for that size if the model has a fixed one.

    Args:
        contestant: The model, its arguments and its attention.
        img_size: Side of the images in pixels.
    """
    if is_model_folder(contestant.model):
        model = load_model(contestant.model).model
        return reparameterize_model(model) if contestant.reparam else model
    args: dict[str, Any] = dict(contestant.args)
    cfg = get_pretrained_cfg(contestant.model)
    if cfg is not None and cfg.fixed_input_size and cfg.input_size[-1] != img_size:
        args["img_size"] = img_size
    before, experimental = use_fused_attn(), use_fused_attn(experimental=True)
    set_fused_attn(contestant.fused)
    try:
        model = timm.create_model(contestant.model, **args).eval()
    finally:
        set_fused_attn(before, experimental)
    return reparameterize_model(model) if contestant.reparam else model


def channels_of(model: nn.Module) -> int:
    """Returns the number of channels of the images that a timm model takes."""
    cfg: Any = model.pretrained_cfg
    return cfg["input_size"][0]


def cost_of(contestant: Contestant, img_size: int, batch: int) -> Cost:
    """Counts the cost by running the model without fused attention, on the meta device.

    Args:
        contestant: The contestant whose model is counted.
        img_size: Side of the images in pixels.
        batch: Images per call.
    """
    with torch.device("meta"):
        model = make_model(replace(contestant, fused=False), img_size).requires_grad_(False)
        images = torch.empty(batch, channels_of(model), img_size, img_size)
    shapes = MatrixProducts()
    with FlopCounterMode(display=False) as counter, shapes:
        model(images)
    parameters = sum(p.numel() for p in model.parameters())
    return Cost(parameters, counter.get_total_flops() // 2, dict(shapes.products))


class MatrixProducts(TorchDispatchMode):
    """Records the shape of every matrix product that is computed inside this context."""

    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[Product] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Records one operation; torch calls this for each."""
        out = func(*args, **(kwargs or {}))
        kind = func._overloadpacket
        if kind in (aten.mm, aten.addmm):
            a, b = args[-2:]
            self.products[1, a.shape[0], a.shape[1], b.shape[1]] += 1
        elif kind in (aten.bmm, aten.baddbmm):
            a, b = args[-2:]
            self.products[a.shape[0], a.shape[1], a.shape[2], b.shape[2]] += 1
        elif kind is aten.convolution:
            weight, groups = args[1], args[8]
            if weight.shape[1] > 1:
                rows = out.numel() // out.shape[1]
                self.products[groups, rows, weight[0].numel(), weight.shape[0] // groups] += 1
        return out


def operands(product: Product, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Makes random matrices of a product's shape; the right one is transposed, as in a Linear layer."""
    n, rows, inner, columns = product
    a = torch.randn(n, rows, inner, device=device, dtype=dtype)
    b = torch.randn(n, columns, inner, device=device, dtype=dtype)
    return (a[0], b[0]) if n == 1 else (a, b)


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """Computes the product as Linear or attention does."""
    return F.linear(a, b) if a.ndim == 2 else torch.bmm(a, b.transpose(1, 2))
