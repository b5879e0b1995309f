"""The Super Token Transformer.

"Global Interaction Modelling in Vision Transformer via Super Tokens", https://arxiv.org/abs/2111.13156. No public code
exists and only the abstract is known to us: the rest is our reconstruction.

Letters in shapes: B batch, C channels (width), H W image, h w patch grid, gh gw window grid, M window side,
T = 1 + M*M tokens in a window (the Super token is number 0), K classes.
"""

import math
from typing import Any, Dict, List, Optional, Tuple, Union

import torch
from timm.layers import calculate_drop_path_rates, trunc_normal_
from timm.models import named_apply
from torch import Tensor, nn

from .architecture import Architecture
from .layers import Block, ClassLayer, GlobalLayer, LocalLayer
from .learned_grid import LearnedGrid
from .mixer import Mixer
from .stem import Stem
from .timm_contract import TimmContract, check_count, check_pool, check_rate
from .windows import SuperTokenMap, Windows, at_least_each, patch_grid_size, zero_beyond

ALL_LAYERS = 1 << 30  # as the number of the last layer to run


class SuperTokenTransformer(TimmContract):
    """Isotropic vision transformer with one Super token per window; upper layers and class token read only those.

    Images [B, in_chans, H, W] of any size -> logits [B, K].

    Args:
        in_chans: Channels of the image.
        num_classes: K; 0 for no classifier, the output is then the pooled features [B, C].
        global_pool: "token" (class layers), "avg" (mean of the Super tokens) or "" (none: the output stays a map).
        img_size: Size at which positions and Super tokens are learned; they are resized for every other one.
        drop_rate: Dropout before the classifier.
        proj_drop_rate: Dropout after the projections of attention and MLP.
        attn_drop_rate: Dropout of the attention weights.
        drop_path_rate: Stochastic depth of the last layer; rises linearly from 0 at the first.
        weight_init: "skip" leaves the weights uninitialised.
        device: Where the parameters are created.
        dtype: Of the parameters.
        **architecture: Fields of Architecture.

    Raises:
        TypeError: An argument that is no field of Architecture.
        ValueError: An impossible value; the message names the argument.
    """

    def __init__(
        self,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "token",
        *,
        img_size: Union[int, Tuple[int, int]] = 224,
        drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        weight_init: str = "",
        device=None,
        dtype=None,
        **architecture,
    ) -> None:
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        a = self.architecture = Architecture(**architecture)
        check_pool(global_pool, a.class_layers > 0)
        check_count("in_chans", in_chans, least=1)
        check_count("num_classes", num_classes, least=0)
        rates = {"drop_rate": drop_rate, "proj_drop_rate": proj_drop_rate, "attn_drop_rate": attn_drop_rate}
        for name, rate in (rates | {"drop_path_rate": drop_path_rate}).items():
            check_rate(name, rate)
        if weight_init not in ("", "skip"):
            raise ValueError(f"weight_init={weight_init!r}: must be '' or 'skip'")
        self.in_chans = in_chans
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = a.width
        self.stride = a.stride  # for torch.jit.script, which cannot read the architecture
        self.global_pool = global_pool
        self.ends_in_patches = False  # set when pruned to a local layer
        drop_path: List[Any] = calculate_drop_path_rates(drop_path_rate, a.local_layers + a.global_layers)
        drops: Dict[str, Any] = {"drop": proj_drop_rate, "attn_drop": attn_drop_rate}
        common: Dict[str, Any] = {"layer_scale": a.layer_scale, **dd}

        def block(name: str, ratio: float, rate: float) -> Block:
            return Block(a.width, a.heads, mlp_ratio=ratio, drop_path=rate, name=name, **drops, **common)

        def mixer(name: str, kind: str, rate: float) -> Optional[Mixer]:
            name = name + ".mixer"
            return None if kind == "none" else Mixer(kind, a.width, a.heads, drop_path=rate, name=name, **common)

        self.stem = Stem(in_chans, a.width, stride=a.stride, convs=a.stem_convs, order=a.stem_order, **dd)
        means = a.token_start == "mean"
        self.windows = Windows(a.width, a.window, patch_grid_size(img_size, a.stride), add_means=means, **dd)
        self.local_layers = nn.ModuleList()
        for i, rate in enumerate(drop_path[: a.local_layers]):
            n = f"local.{i}"
            self.local_layers.append(LocalLayer(block(n, a.local_mlp_ratio, rate), mixer(n, a.mixer, rate), name=n))
        self.global_layers = nn.ModuleList()
        for i, rate in enumerate(drop_path[a.local_layers :]):
            n = f"global.{i}"
            self.global_layers.append(GlobalLayer(block(n, a.mlp_ratio, rate), mixer(n, a.global_mixer, rate), name=n))
        self.norm = nn.LayerNorm(a.width, eps=1e-6, **dd)
        self.super_map = SuperTokenMap()
        self.class_token = nn.Parameter(torch.empty(1, 1, a.width, **dd)) if global_pool == "token" else None
        self.class_layers = nn.ModuleList(
            ClassLayer(a.width, a.heads, mlp_ratio=a.mlp_ratio, name=f"class.{i}", **drops, **common)
            for i in range(a.class_layers if global_pool == "token" else 0)
        )
        self.class_norm = nn.LayerNorm(a.width, eps=1e-6, **dd) if global_pool == "token" else nn.Identity()
        self.head_drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(a.width, num_classes, **dd) if num_classes > 0 else nn.Identity()

        names = [f"local_layers.{i}" for i in range(a.local_layers)]
        names += [f"global_layers.{i}" for i in range(a.global_layers)]
        strides = [a.stride] * a.local_layers + [a.stride * a.window] * a.global_layers
        self.feature_info = [
            {"num_chs": a.width, "reduction": stride, "module": name}
            for stride, name in zip(strides, names, strict=True)
        ]
        if weight_init != "skip":
            self.init_weights(needs_reset=False)

    def forward_features(
        self, x: Tensor, collect: Optional[Dict[str, Tensor]] = None, sizes: Optional[Tensor] = None
    ) -> Tensor:
        """Images [B, in_chans, H, W] -> the Super tokens of all windows as a map [B, C, gh, gw].

        A network that was pruned to a local layer gives its patch tokens instead, [B, C, h, w].

        Args:
            x: Images of any size.
            collect: A dict to fill with intermediates by name: `local.0.attention`, `local.0.tokens` (before the
                mixer), `local.0.super_tokens` (behind it), ..., `global.0.attention`, `global.0.super_tokens`, ...;
                and with `grid` (gh, gw) and `size` (h, w), which place them. The computation goes on with the tensors
                that are collected, so that gradients reach every one of them.
            sizes: As in forward_padded; the maps are zero beyond each image's own grid.
        """
        x, _, grid, size = self.forward_tokens(x, collect, sizes=sizes)
        x = self.norm(x)
        x = self.windows.patch_grid(x, grid, size) if self.ends_in_patches else self.super_map(x, grid)
        if sizes is not None:
            unit = self.stride * (1 if self.ends_in_patches else self.windows.side)
            x = zero_beyond(x, at_least_each(sizes, unit))
        return x

    def forward_tokens(
        self,
        x: Tensor,
        collect: Optional[Dict[str, Tensor]] = None,
        take: Optional[List[int]] = None,
        last: int = ALL_LAYERS,
        sizes: Optional[Tensor] = None,
    ) -> Tuple[Tensor, List[Tensor], Tuple[int, int], Tuple[int, int]]:
        """Images [B, in_chans, H, W] -> the tokens behind the last layer: Super tokens [B, gh*gw, C].

        Args:
            x: Images of any size.
            collect: As in forward_features.
            take: Numbers of layers (local ones first) whose tokens are returned too.
            last: Number of the last layer to run.
            sizes: As in forward_padded.

        Returns:
            The tokens; those of the layers in `take`, [B, gh*gw, T, C] of local and [B, gh*gw, C] of global layers; the
            window grid (gh, gw); the patch grid (h, w).
        """
        taken: List[Tensor] = []
        L = len(self.local_layers)
        x = self.stem(x) if sizes is None else self.stem(x, sizes)  # [B, C, h, w]
        size = (x.shape[2], x.shape[3])
        own = None if sizes is None else at_least_each(sizes, self.stride)  # [B, 2], rows and columns of patches
        x, mask, grid = self.windows(x, own)  # [B, gh*gw, T, C]
        super_mask = None if own is None else self.windows.super_mask(own, grid, x.dtype)
        for i, layer in enumerate(self.local_layers):
            if i <= last:
                asked = take is not None and i in take
                # nobody reads the patch tokens that the last local layer would give, unless they are asked for
                super_only = i == L - 1 and not self.ends_in_patches and collect is None
                if super_only and asked and self.training:
                    super_only = False  # one pass, as drop path would draw other branches in a second one
                elif super_only and asked:  # besides: what goes on stays the same to the last bit
                    taken.append(layer(x, grid, mask, super_mask=super_mask))
                # [B, gh*gw, T, C], with super_only [B, gh*gw, 1, C]
                x = layer(x, grid, mask, collect, super_only, super_mask)
                if not super_only and asked:
                    taken.append(x)
        if not self.ends_in_patches:
            x = x[:, :, 0]  # [B, gh*gw, C]: the patch tokens are left behind
        for i, layer in enumerate(self.global_layers):
            if L + i <= last:
                x = layer(x, grid, collect, super_mask)
                if take is not None and L + i in take:
                    taken.append(x)
        if collect is not None:
            collect["grid"], collect["size"] = torch.tensor(grid), torch.tensor(size)
        return x, taken, grid, size

    def forward_head(
        self,
        x: Tensor,
        pre_logits: bool = False,
        collect: Optional[Dict[str, Tensor]] = None,
        sizes: Optional[Tensor] = None,
    ) -> Tensor:
        """Super tokens [B, C, gh, gw] -> logits [B, K], or the pooled features [B, C] with `pre_logits`.

        Args:
            x: What forward_features returned.
            pre_logits: Stop before the classifier.
            collect: A dict to fill with `class.0.attention`, ...
            sizes: As in forward_padded.
        """
        own = None if sizes is None else at_least_each(sizes, self.stride)
        if self.class_token is not None:
            super_tokens = x.flatten(2).transpose(1, 2)  # [B, gh*gw, C]
            token = self.class_token.expand(x.shape[0], -1, -1)  # [B, 1, C]
            if self.windows.add_means:
                token = token + self.mean_of_windows(x, own).unsqueeze(1)
            grid = (x.shape[2], x.shape[3])
            super_mask = None if own is None else self.windows.super_mask(own, grid, x.dtype)
            for layer in self.class_layers:
                token = layer(token, super_tokens, collect, super_mask)
            x = self.class_norm(token[:, 0])  # [B, C]
        elif self.global_pool == "avg":
            x = self.mean_of_windows(x, own)
        x = self.head_drop(x)
        if pre_logits:
            return x
        if self.global_pool == "":  # a classifier on every Super token
            x = self.head(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            return x if own is None else zero_beyond(x, at_least_each(own, self.windows.side))
        return self.head(x)

    def mean_of_windows(self, x: Tensor, own: Optional[Tensor]) -> Tensor:
        """Super tokens [B, C, gh, gw] -> mean [B, C] of those in each image's `own` rows and columns of patches."""
        if own is None:
            return x.mean((2, 3))
        return x.sum((2, 3)) / at_least_each(own, self.windows.side).prod(1, keepdim=True)  # beyond them are zeros

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, in_chans, H, W] -> logits [B, K]."""
        x = self.forward_features(x)
        return self.forward_head(x)

    @torch.jit.ignore
    def forward_padded(self, x: Tensor, sizes: Tensor) -> Tensor:
        """Images of different sizes [B, in_chans, H, W] -> for each the logits that it has alone, [B, K].

        Args:
            x: Images, each padded on the right and at the bottom, whatever with.
            sizes: Height and width of each image in pixels [B, 2].

        Raises:
            ValueError: Sizes that the images cannot have, or a stem in training mode: its BatchNorm would count the
                padding.
        """
        if any(isinstance(layer, nn.BatchNorm2d) and layer.training for layer in self.stem.modules()):
            raise ValueError("sizes: the stem is in training mode, in which its BatchNorm would count the padding")
        if sizes.shape != (len(x), 2) or (sizes < 1).any() or (sizes > torch.tensor(x.shape[2:]).to(sizes)).any():
            shape = f"images {list(x.shape)}"
            raise ValueError(f"sizes={sizes.tolist()}: must be a height and width within those of {shape} for each")
        sizes = sizes.to(x.device)
        x = self.forward_features(x, sizes=sizes)
        return self.forward_head(x, sizes=sizes)

    @torch.jit.ignore
    def forward_collect(self, x: Tensor) -> Tuple[Tensor, Dict[str, Tensor]]:
        """Images [B, in_chans, H, W] -> logits [B, K] and every named intermediate (see forward_features)."""
        collect: Dict[str, Tensor] = {}
        x = self.forward_features(x, collect)
        return self.forward_head(x, collect=collect), collect

    @torch.jit.ignore
    def init_weights(self, mode: str = "", needs_reset: bool = True) -> None:
        """Initialises every weight.

        | weight | initial value |
        |---|---|
        | Linear | truncated normal, std 0.02; bias 0 |
        | Conv2d of the stem | normal, std sqrt(2 / (9 * output channels)) |
        | Conv2d of the mixer | normal, std 1/3; bias 0 |
        | Super tokens, positions, class token | truncated normal, std 0.02 |
        | LayerNorm, BatchNorm | weight 1, bias 0 |
        | LayerScale | `layer_scale` |

        Args:
            mode: Accepted for timm's sake; there is one way.
            needs_reset: Also reset what has a default of its own (norms, LayerScale), as after `to_empty()`.
        """
        named_apply(lambda module, name: init_module(module, needs_reset), self)
        if self.class_token is not None:
            trunc_normal_(self.class_token, std=0.02)


def init_module(module: nn.Module, needs_reset: bool) -> None:
    """Initialises the weights that a module itself holds; the table is in SuperTokenTransformer.init_weights."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt((2.0 if module.groups == 1 else 1.0) / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, LearnedGrid):
        trunc_normal_(module.weight, std=0.02)
    elif needs_reset and hasattr(module, "reset_parameters"):
        module.reset_parameters()  # type: ignore[operator]
