"""Small networks and images that the tests of the model share."""

import pytest
import torch

from supertokenvit.model.network import SuperTokenTransformer

TINY = {"stride": 4, "window": 2, "width": 16, "heads": 2, "local_layers": 2, "global_layers": 2, "class_layers": 1}
TINY |= {"local_mlp_ratio": 4.0, "layer_scale": None}  # else small branches would hide what a test looks at
PADDED = (10, 33)  # a grid of 3 x 9 patches: with windows of side 2, padding on the right and at the bottom
SIZES = pytest.mark.parametrize("size", [(16, 16), (16, 24), PADDED], ids=str)


def tiny(seed=0, **changes):
    torch.manual_seed(seed)
    return SuperTokenTransformer(**({"num_classes": 3, "img_size": 16} | TINY | changes)).eval()


def images(*size, batch=2, seed=1):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))
