"""Inception modules (Szegedy et al. 2015, 2016): branches that look at the same maps in different ways.

A module is told as data, one tuple of steps a branch: `(Conv(64), Conv(96, 3))` is a 1 × 1 bottleneck of 64
maps before 96 of 3 × 3; `Conv(192, (1, 7)), Conv(192, (7, 1))` factorises 7 × 7 into two, with 2/7 of its
weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Conv:
    """A convolution with batch norm and ReLU.

    Attributes:
        maps: that it gives.
        side: of its window: one number, or height and width.
        stride: of both sides.
        padded: keeps height and width (of stride 1); else a window lies within the maps.
    """

    maps: int
    side: int | tuple[int, int] = 1
    stride: int = 1
    padded: bool = True


@dataclass(frozen=True)
class Pool:
    """A pooling of 3 × 3: of stride 1 it keeps height and width, of 2 a window lies within the maps."""

    kind: Literal["max", "average"]
    stride: int = 1


@dataclass(frozen=True)
class Fork:
    """Branches within a branch, one behind the other in what they give."""

    branches: tuple[Branch, ...]


Step = Conv | Pool | Fork
Branch = tuple[Step, ...]


class ConvNorm(nn.Sequential):
    """A convolution with batch norm and ReLU, from `inputs` maps."""

    def __init__(self, inputs: int, told: Conv) -> None:
        height, width = told.side if isinstance(told.side, tuple) else (told.side, told.side)
        padding = (height // 2, width // 2) if told.padded else (0, 0)
        super().__init__(
            # The norm behind it has its own bias.
            nn.Conv2d(inputs, told.maps, (height, width), told.stride, padding, bias=False),
            nn.BatchNorm2d(told.maps, eps=0.001),
            nn.ReLU(inplace=True),
        )


class Inception(nn.Module):
    """From (rows, inputs, height, width) to the maps of all branches, one branch's behind another's.

    Args:
        inputs: maps that come in.
        branches: what each does with them.

    Attributes:
        maps: that it gives.
    """

    def __init__(self, inputs: int, branches: Sequence[Branch]) -> None:
        super().__init__()
        built = [_branch(inputs, branch) for branch in branches]
        self.branches = nn.ModuleList(module for module, _ in built)
        self.maps = sum(maps for _, maps in built)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def _branch(inputs: int, steps: Branch) -> tuple[nn.Sequential, int]:
    """The branch, and how many maps it gives."""
    layers: list[nn.Module] = []
    for step in steps:
        match step:
            case Conv():
                layers.append(ConvNorm(inputs, step))
                inputs = step.maps
            case Pool(kind="max"):
                layers.append(nn.MaxPool2d(3, step.stride, padding=int(step.stride == 1)))
            case Pool():
                padding = int(step.stride == 1)
                layers.append(nn.AvgPool2d(3, step.stride, padding, count_include_pad=False))
            case Fork():
                fork = Inception(inputs, step.branches)
                layers.append(fork)
                inputs = fork.maps
    return nn.Sequential(*layers), inputs


def sequence(inputs: int, steps: Branch) -> tuple[nn.Sequential, int]:
    """Steps one after another, and how many maps they give: a net's stem."""
    return _branch(inputs, steps)


def slimmed(branches: Sequence[Branch], width: float) -> tuple[Branch, ...]:
    """The same with `width` times as many maps everywhere, 4 at least."""

    def slim(step: Step) -> Step:
        match step:
            case Conv():
                return replace(step, maps=max(4, round(step.maps * width)))
            case Fork():
                return Fork(slimmed(step.branches, width))
        return step

    return tuple(tuple(slim(step) for step in branch) for branch in branches)
