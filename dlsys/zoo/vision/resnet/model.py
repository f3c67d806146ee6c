"""ResNet for small images (He et al. 2015, arXiv:1512.03385, section 4.2).

Three stages of n blocks of two 3 × 3 convolutions, 6n + 2 layers in all. Where the size changes,
the shortcut is the paper's option A: every second pixel, zeros for the new maps, no parameters.
"""

from __future__ import annotations

import math
from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.zoo.tasks.classify import Classify
from dlsys.zoo.vision.resnet.card import CARD, ResNetOptions


def _norm(kind: str, maps: int) -> nn.Module:
    # Group norm: Wu and He 2018, arXiv:1803.08494.
    return nn.BatchNorm2d(maps) if kind == "batch" else nn.GroupNorm(math.gcd(8, maps), maps)


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    # The norm behind it has its own bias.
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


class Block(nn.Module):
    """relu(x + f(x)), or relu(f(x)) of a plain net: (rows, inputs, h, w) to (rows, outputs, ⌈h/stride⌉,
    ⌈w/stride⌉)."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str, residual: bool) -> None:
        super().__init__()
        self.conv1 = _convolution(inputs, outputs, stride)
        self.norm1 = _norm(norm, outputs)
        self.conv2 = _convolution(outputs, outputs)
        self.norm2 = _norm(norm, outputs)
        self.relu = nn.ReLU()
        self.stride = stride
        self.residual = residual
        self.new_maps = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        inner: Tensor = self.relu(self.norm1(self.conv1(x)))
        inner = self.norm2(self.conv2(inner))
        if not self.residual:
            plain: Tensor = self.relu(inner)
            return plain
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_maps))
        outer: Tensor = self.relu(inner + shortcut)
        return outer


class ResNet(Classify):
    """Logits (rows, classes) from `image` (rows, channels, height, width)."""

    Options = ResNetOptions
    card = CARD

    def build(self) -> nn.Module:
        channels, width, norm = self.shape.row["image"][0], self.options.width, self.options.norm
        model = nn.Sequential(
            OrderedDict(
                stem=nn.Sequential(_convolution(channels, width), _norm(norm, width), nn.ReLU()),
                stage1=self._stage(width, width, stride=1),
                stage2=self._stage(width, 2 * width, stride=2),
                stage3=self._stage(2 * width, 4 * width, stride=2),
                head=nn.Sequential(
                    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, self.shape.classes)
                ),
            )
        )
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        return model

    def _stage(self, inputs: int, outputs: int, stride: int) -> nn.Sequential:
        blocks, how = (self.options.depth - 2) // 6, (self.options.norm, self.options.residual)
        return nn.Sequential(
            Block(inputs, outputs, stride, *how),
            *(Block(outputs, outputs, 1, *how) for _ in range(blocks - 1)),
        )
