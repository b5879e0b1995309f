"""Whitening of the smallest patches of an image: a first convolution that need not be learned.

python -m studies.networks.whitening CIFAR10/train

The command measures the covariance of the 2x2 patches of training images, normalised by ImageNet's mean and deviation,
and writes it to results/short/patches.csv.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, Normalize, ToTensor

from ..common import RESULTS

PATCHES = RESULTS / "short" / "patches.csv"
IMAGES = 5000
EPS = 5e-4  # added to the variances, so that noise is not made as large as what is seen


class Whitening(nn.Sequential):
    """The components of each 2x2 patch with variance one, and their negatives. [B, 3, H, W] -> [B, 24, h, w]

    As in arXiv 2404.00498, section 3.2: the weights stay as they are, the bias is learned, GELU comes behind it.

    Args:
        pad: Zeros below and at the right: 1 for h = H, w = W; 0 for one less.
    """

    channels = 24

    def __init__(self, pad: int = 1) -> None:
        conv = nn.Conv2d(3, self.channels, 2)
        conv.weight = nn.Parameter(kernels(torch.as_tensor(np.loadtxt(PATCHES, delimiter=","))), requires_grad=False)
        conv.bias = nn.Parameter(torch.zeros(self.channels))
        super().__init__(nn.ZeroPad2d((0, pad, 0, pad)), conv, nn.GELU())


def kernels(covariance: Tensor) -> Tensor:
    """Makes the weights of the convolution from the covariance of patches. [12, 12] -> [24, 3, 2, 2]"""
    variances, directions = torch.linalg.eigh(covariance)
    whitened = (directions / (variances + EPS).sqrt()).T.flip(0).reshape(-1, 3, 2, 2)
    return torch.cat([whitened, -whitened]).float()


def covariance(images: Tensor) -> Tensor:
    """Returns the covariance over all 2x2 patches. [N, 3, H, W] -> [12, 12]"""
    return torch.cov(F.unfold(images, 2).transpose(0, 1).flatten(1).double())


def main(argv: Sequence[str] | None = None) -> None:
    """Measures the covariance of patches and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="training images, one folder for each class")
    args = parser.parse_args(argv)
    change = Compose([ToTensor(), Normalize(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)])
    folder = ImageFolder(str(args.images), change)
    drawn = np.random.default_rng(0).permutation(len(folder))[:IMAGES]
    np.savetxt(PATCHES, covariance(torch.stack([folder[i][0] for i in drawn])).numpy(), fmt="%.6f", delimiter=",")


if __name__ == "__main__":
    main()
