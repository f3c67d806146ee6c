"""AnyNet and RegNet (Radosavovic et al. 2020, arXiv:2003.13678).

A stem, a body of four stages, each of which halves height and width, and a head. Blocks are the paper's X
block, a residual bottleneck with a grouped convolution, or its Y block, with squeeze and excitation (Hu et
al. 2018, arXiv:1709.01507) besides.
"""

from __future__ import annotations

import math
from collections import OrderedDict

from torch import Tensor, nn

from dlsys.zoo.layers.enlarge import Enlarge
from dlsys.zoo.tasks.classify import Classify
from dlsys.zoo.vision.anynet.card import CARD, AnyNetOptions, Stage


def _convolution(inputs: int, outputs: int, side: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution and its norm: (rows, inputs, h, w) to (rows, outputs, ⌈h/stride⌉, ⌈w/stride⌉)."""
    kernel = nn.Conv2d(inputs, outputs, side, stride, side // 2, groups=groups, bias=False)
    return nn.Sequential(kernel, nn.BatchNorm2d(outputs))


class Squeeze(nn.Module):
    """Weighs each map (rows, maps, h, w) by what all maps are on average, through fewer `units`."""

    def __init__(self, maps: int, units: int) -> None:
        super().__init__()
        self.weights = nn.Sequential(
            *(nn.AdaptiveAvgPool2d(1), nn.Conv2d(maps, units, 1), nn.ReLU()),
            *(nn.Conv2d(units, maps, 1), nn.Sigmoid()),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x * self.weights(x)
        return out


class Block(nn.Module):
    """relu(shortcut(x) + f(x)): (rows, inputs, h, w) to (rows, stage.maps, ⌈h/stride⌉, ⌈w/stride⌉)."""

    def __init__(self, inputs: int, stage: Stage, stride: int, squeeze: float) -> None:
        super().__init__()
        inner, maps = stage.inner, stage.maps
        self.inner = nn.Sequential(
            *(_convolution(inputs, inner, 1), nn.ReLU()),
            *(_convolution(inner, inner, 3, stride, inner // stage.group), nn.ReLU()),
            *([Squeeze(inner, max(1, round(squeeze * inputs)))] if squeeze else []),
            _convolution(inner, maps, 1),
        )
        same = inputs == maps and stride == 1
        self.shortcut = nn.Identity() if same else _convolution(inputs, maps, 1, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.shortcut(x) + self.inner(x))
        return out


class AnyNet(Classify):
    """Logits (rows, classes) from `image` (rows, channels, height, width)."""

    Options = AnyNetOptions
    card = CARD

    def build(self) -> nn.Module:
        channels, maps = self.shape.row["image"][0], self.options.stem
        parts: dict[str, nn.Module] = {
            "stem": nn.Sequential(
                Enlarge(self.options.size), _convolution(channels, maps, 3, stride=2), nn.ReLU()
            )
        }
        for number, stage in enumerate(self.options.stages, start=1):
            blocks = [Block(maps, stage, 2, self.options.squeeze)]
            blocks += [Block(stage.maps, stage, 1, self.options.squeeze) for _ in range(stage.blocks - 1)]
            parts[f"stage{number}"] = nn.Sequential(*blocks)
            maps = stage.maps
        output = nn.Linear(maps, self.shape.classes)
        parts["head"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), output)
        model = nn.Sequential(OrderedDict(parts))
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.out_channels * math.prod(module.kernel_size)
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        nn.init.normal_(output.weight, std=0.01)
        nn.init.zeros_(output.bias)
        return model
