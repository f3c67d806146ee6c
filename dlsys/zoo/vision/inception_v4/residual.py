"""Inception-ResNet-v2's modules: figures 16 to 19 of Szegedy et al. 2017, arXiv:1602.07261.

As its authors' code has them, whose stem is Inception-v3's.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.zoo.layers.inception import Branch, Conv, Fork, Inception, Pool


def _half(maps: int) -> Conv:
    """A convolution that halves height and width."""
    return Conv(maps, 3, stride=2, padded=False)


STEM: Branch = (
    *(_half(32), Conv(32, 3, padded=False), Conv(64, 3), Pool("max", stride=2)),
    *(Conv(80), Conv(192, 3, padded=False), Pool("max", stride=2)),
    Fork(
        (
            (Conv(96),),
            (Conv(48), Conv(64, 5)),
            (Conv(64), Conv(96, 3), Conv(96, 3)),
            (Pool("average"), Conv(64)),
        )
    ),
)
LARGE: tuple[Branch, ...] = ((Conv(32),), (Conv(32), Conv(32, 3)), (Conv(32), Conv(48, 3), Conv(64, 3)))
TO_MEDIUM: tuple[Branch, ...] = (
    (_half(384),),
    (Conv(256), Conv(256, 3), _half(384)),
    (Pool("max", stride=2),),
)
MEDIUM: tuple[Branch, ...] = ((Conv(192),), (Conv(128), Conv(160, (1, 7)), Conv(192, (7, 1))))
TO_SMALL: tuple[Branch, ...] = (
    (Conv(256), _half(384)),
    (Conv(256), _half(288)),
    (Conv(256), Conv(288, 3), _half(320)),
    (Pool("max", stride=2),),
)
SMALL: tuple[Branch, ...] = ((Conv(192),), (Conv(192), Conv(224, (1, 3)), Conv(256, (3, 1))))
# Larger sums of many modules made training unstable (section 3.3).
SCALES = {"large": 0.17, "medium": 0.10, "small": 0.20}


class Residual(nn.Module):
    """relu(x + scale · f(x)) where f is an Inception module and a 1 × 1 convolution to as many maps as x has.

    Args:
        maps: of x.
        branches: of the module.
        scale: see `SCALES`.
        last: the net's last module adds all of f(x), and is not rectified.
    """

    def __init__(self, maps: int, branches: Sequence[Branch], scale: float, *, last: bool) -> None:
        super().__init__()
        self.module = Inception(maps, branches)
        self.expand = nn.Conv2d(self.module.maps, maps, 1)
        self.scale, self.last = 1.0 if last else scale, last
        self.maps = maps

    def forward(self, x: Tensor) -> Tensor:
        added = x + self.scale * self.expand(self.module(x))
        return added if self.last else F.relu(added)
