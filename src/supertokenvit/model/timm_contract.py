"""What timm expects of a model besides its forward pass: features, pruning, heads, sizes, groups.

The one place that imports private names of timm. The methods are described in timm's own models (1.0.31).
"""

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Set, Tuple, Union

import torch
from timm.layers import get_device_dtype, to_2tuple
from timm.models._features import FeatureInfo, feature_take_indices
from timm.models._input import update_model_input_size
from torch import Tensor, nn

from .architecture import Architecture
from .windows import Windows, patch_grid_size, super_token_map

__all__ = ["FeatureInfo", "TimmContract", "check_count", "check_pool", "check_rate"]
POOLS = ("token", "avg", "")


def check_pool(global_pool: str, has_class_layers: bool) -> None:
    """Raises ValueError for a pooling that a model cannot do."""
    if global_pool not in POOLS:
        raise ValueError(f"global_pool={global_pool!r}: must be one of {POOLS}")
    if global_pool == "token" and not has_class_layers:
        raise ValueError("global_pool='token' needs class layers, and there are none")


def check_count(name: str, value: int, least: int) -> None:
    """Raises ValueError for what is no whole number, or too small a one."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}={value!r}: must be a whole number of at least {least}")


def check_rate(name: str, value: float) -> None:
    """Raises ValueError for what is no probability below one."""
    if not isinstance(value, Real) or not 0 <= value < 1:
        raise ValueError(f"{name}={value!r}: must be from 0 to less than 1")


class TimmContract(nn.Module):
    """Base of SuperTokenTransformer: the methods that timm calls and that the forward pass does not need."""

    if TYPE_CHECKING:  # not at run time: torch.jit.script would take them for attributes
        architecture: Architecture
        windows: Windows
        stem: nn.Module
        norm: nn.Module
        local_layers: nn.ModuleList
        global_layers: nn.ModuleList
        class_layers: nn.ModuleList
        class_norm: nn.Module
        class_token: Optional[nn.Parameter]
        head: nn.Module
        feature_info: List[Dict[str, Any]]
        num_features: int
        num_classes: int
        global_pool: str
        ends_in_patches: bool

    def forward_intermediates(
        self,
        x: Tensor,
        indices: Optional[Union[int, List[int]]] = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Union[List[Tensor], Tuple[Tensor, List[Tensor]]]:
        """Maps of chosen layers: patch tokens [B, C, h, w] of local, Super tokens [B, C, gh, gw] of global ones.

        Args:
            x: Images [B, in_chans, H, W].
            indices: Layers by number (local ones first), or the last n if an int, or all if None. The maps come in the
                order of the layers, each once, whatever the order of the numbers.
            norm: Apply the final norm to each.
            stop_early: Leave out the layers above the last one chosen; the final features are then that layer's.
            output_fmt: "NCHW" or "NHWC".
            intermediates_only: Return the list only, not the final features too.
        """
        if output_fmt not in ("NCHW", "NHWC"):
            raise ValueError(f"output_fmt={output_fmt!r}: must be NCHW or NHWC")
        depth, L = len(self.feature_info), len(self.local_layers)
        take, deepest = feature_take_indices(depth, indices)
        last = deepest if stop_early else depth - 1
        x, taken, grid, size = self.forward_tokens(x, None, take, last)  # type: ignore[operator]

        intermediates: List[Tensor] = []
        for i in range(depth):
            if i in take:
                y = taken[len(intermediates)]
                y = self.norm(y) if norm else y
                y = self.windows.patch_grid(y, grid, size) if i < L else super_token_map(y, grid)
                intermediates.append(y.permute(0, 2, 3, 1) if output_fmt == "NHWC" else y)
        if intermediates_only:
            return intermediates
        if last < depth - 1:
            return intermediates[-1], intermediates
        x = self.norm(x)
        x = self.windows.patch_grid(x, grid, size) if self.ends_in_patches else super_token_map(x, grid)
        return x, intermediates

    @torch.jit.ignore
    def prune_intermediate_layers(
        self,
        indices: Union[int, List[int]] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> List[int]:
        """Drops the layers above the last one chosen. Pruned to a local layer, the features are its patch tokens.

        Args:
            indices: As in forward_intermediates.
            prune_norm: Drop the final norm.
            prune_head: Drop class layers and classifier (they go too when a layer goes).

        Returns:
            The chosen layers' numbers.
        """
        take_indices, max_index = feature_take_indices(len(self.feature_info), indices)
        L = len(self.local_layers)
        cut = max_index < len(self.feature_info) - 1
        if max_index < L and (cut or prune_head):
            self.local_layers = self.local_layers[: max_index + 1]
            self.global_layers = nn.ModuleList().train(self.training)
            self.local_layers[-1].mixer = None  # type: ignore[assignment]  # nothing reads the Super tokens any more
            self.ends_in_patches = True
        else:
            self.global_layers = self.global_layers[: max_index - L + 1]
        self.feature_info = self.feature_info[: max_index + 1]
        if prune_norm:
            self.norm = nn.Identity().train(self.training)
        if prune_head or cut:
            self.reset_classifier(0, "")
        return take_indices

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """The Linear that gives the logits."""
        return self.head

    @torch.jit.ignore
    def reset_classifier(self, num_classes: int, global_pool: Optional[str] = None) -> None:
        """A new classifier, and another pooling if named.

        Args:
            num_classes: K; 0 for none.
            global_pool: "token", "avg" or ""; None keeps the present one. Class layers go when the pooling is not
                "token", and cannot come back.
        """
        pool = self.global_pool if global_pool is None else global_pool
        check_count("num_classes", num_classes, least=0)
        check_pool(pool, len(self.class_layers) > 0)
        if pool != "token":
            self.class_token = None
            self.class_layers = nn.ModuleList().train(self.training)
            self.class_norm = nn.Identity().train(self.training)
        self.global_pool = pool
        self.num_classes = num_classes
        dd = get_device_dtype(self)
        head = nn.Linear(self.num_features, num_classes, **dd) if num_classes > 0 else nn.Identity()
        self.head = head.train(self.training)

    @torch.jit.ignore
    def set_input_size(self, img_size: Optional[Union[int, Tuple[int, int]]] = None) -> None:
        """Learn positions and Super tokens at another image size from now on. Other sizes keep working.

        Args:
            img_size: (H, W) or one side in pixels; None changes nothing.
        """
        if img_size is None:
            return
        self.windows.set_grid_size(patch_grid_size(img_size, self.architecture.stride))
        update_model_input_size(self, to_2tuple(img_size))

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute attention and MLP of each layer in the backward pass instead of keeping what they made."""
        for layer in (*self.local_layers, *self.global_layers):
            layer.block.grad_checkpointing = enable

    @torch.jit.ignore
    def no_weight_decay(self) -> Set[str]:
        """Names of the learned grids and tokens, which weight decay must leave alone."""
        names = {"windows.positions.weight", "windows.super_tokens.weight"}
        return names | ({"class_token"} if self.class_token is not None else set())

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> Dict[str, Any]:
        """Patterns that order the parameters by depth, for layer-wise learning rates."""
        if coarse:
            return {"stem": r"^stem|^windows", "blocks": r"^local_layers|^global_layers"}
        return {
            "stem": r"^stem|^windows",
            "local": r"^local_layers\.(\d+)",
            "global": [(r"^global_layers\.(\d+)", None), (r"^norm", (99999,))],
        }
