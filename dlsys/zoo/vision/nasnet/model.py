"""NASNet (Zoph et al. 2018, arXiv:1707.07012): a normal and a reduction cell, found by a search, repeated.

Scheduled drop path, which the paper trains large nets with, is not here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.zoo.tasks.classify import Classify
from dlsys.zoo.vision.nasnet.card import CARD, CellOptions, NASNetOptions

# Maps of a large stem's convolution.
_STEM = 32


class Cell(nn.Module):
    """From the maps of the last cell and of the one before, to its own: of half their height and width, if it
    is a reduction.

    Args:
        previous: maps of the cell before the last, and how many times higher and wider they are than the last
            one's (1 or 2); None where there was none: then the last one's maps, as they are, are state 0.
        inputs: maps of the last cell.
        filters: maps of each state.
        told: its states.
        stride: 2 for a reduction.

    Attributes:
        maps: that it gives.
    """

    def __init__(
        self, previous: tuple[int, int] | None, inputs: int, filters: int, told: CellOptions, stride: int
    ) -> None:
        super().__init__()
        self.previous: nn.Module | None = None
        if previous is not None:
            self.previous = _skip(*previous, filters)
        self.current = _projected(inputs, filters)
        first = filters if previous is not None else inputs
        self.operations = nn.ModuleList(
            _operation(name, first if of == 0 else filters, filters, stride if of < 2 else 1)
            for pair in told.pairs
            for name, of in pair
        )
        self._of = [(left[1], right[1]) for left, right in told.pairs]
        self._gives = told.gives
        self.maps = sum(first if state == 0 else filters for state in told.gives)

    def forward(self, last: Tensor, before: Tensor | None) -> Tensor:
        states = [last if self.previous is None else self.previous(before), self.current(last)]
        operations = iter(self.operations)
        for left, right in self._of:
            states.append(next(operations)(states[left]) + next(operations)(states[right]))
        return torch.cat([states[number] for number in self._gives], dim=1)


def _projected(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.ReLU(), nn.Conv2d(inputs, outputs, 1, bias=False), _norm(outputs))


def _norm(maps: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(maps, eps=0.001)


def _skip(inputs: int, stride: int, outputs: int) -> nn.Module:
    return _projected(inputs, outputs) if stride == 1 else HalvedSkip(inputs, outputs)


def _operation(name: str, inputs: int, outputs: int, stride: int) -> nn.Module:
    if name == "skip":
        return nn.Identity() if (stride, inputs) == (1, outputs) else _skip(inputs, stride, outputs)
    side = int(name[-1])
    if name.startswith("separable"):
        return Separable(inputs, outputs, side, stride)
    pooled = Pooled("max" if name == "max3" else "average", side, stride)
    return pooled if inputs == outputs else nn.Sequential(pooled, _projected(inputs, outputs))


def _same(x: Tensor, side: int, stride: int, value: float = 0.0) -> Tensor:
    """Padded so that windows of `side`, every `stride`, cover it: the odd pixel comes last, as TensorFlow's
    `SAME` has it."""
    needed = [max((-(-size // stride) - 1) * stride + side - size, 0) for size in x.shape[-2:]]
    (top, left) = (n // 2 for n in needed)
    return F.pad(x, (left, needed[1] - left, top, needed[0] - top), value=value)


class HalvedSkip(nn.Module):
    """Half of the height and width, from every second pixel and from those beside them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(inputs, outputs // 2, 1, bias=False)
        self.odd = nn.Conv2d(inputs, outputs - outputs // 2, 1, bias=False)
        self.norm = _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        beside = F.pad(x, (-1, 1, -1, 1))
        halves = [self.even(x[..., ::2, ::2]), self.odd(beside[..., ::2, ::2])]
        found: Tensor = self.norm(torch.cat(halves, dim=1))
        return found


class Separable(nn.Module):
    """ReLU, a depthwise and a pointwise convolution and a norm, twice."""

    def __init__(self, inputs: int, outputs: int, side: int, stride: int) -> None:
        super().__init__()
        self._side, self._stride = side, stride
        # Where a large stem's maps come in, they are brought to the cell's at once.
        middle = inputs if inputs == outputs else outputs
        self.depth1 = nn.Conv2d(inputs, inputs, side, stride, groups=inputs, bias=False)
        self.point1 = nn.Conv2d(inputs, middle, 1, bias=False)
        self.norm1 = _norm(middle)
        self.depth2 = nn.Conv2d(middle, middle, side, groups=middle, bias=False)
        self.point2 = nn.Conv2d(middle, outputs, 1, bias=False)
        self.norm2 = _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = _same(F.relu(x), self._side, self._stride)
        x = F.relu(self.norm1(self.point1(self.depth1(x))))
        found: Tensor = self.norm2(self.point2(self.depth2(_same(x, self._side, 1))))
        return found


class Pooled(nn.Module):
    """The mean or the largest of each window's pixels that are there."""

    def __init__(self, kind: str, side: int, stride: int) -> None:
        super().__init__()
        self._kind, self._side, self._stride = kind, side, stride

    def forward(self, x: Tensor) -> Tensor:
        if self._kind == "max":
            return F.max_pool2d(_same(x, self._side, self._stride, -torch.inf), self._side, self._stride)
        sums = F.avg_pool2d(_same(x, self._side, self._stride), self._side, self._stride)
        there = _same(torch.ones_like(x[:1, :1]), self._side, self._stride)
        return sums / F.avg_pool2d(there, self._side, self._stride)


class Cells(nn.Module):
    """Cells one after another, each given what the two before it gave.

    Args:
        inputs: maps that come in.
        told: for each cell, its filters, its states and its stride.

    Attributes:
        maps: that the last one gives.
    """

    def __init__(self, inputs: int, told: list[tuple[int, CellOptions, int]]) -> None:
        super().__init__()
        self.cells = nn.ModuleList()
        before: tuple[int, int] | None = None
        for filters, states, stride in told:
            cell = Cell(before, inputs, filters, states, stride)
            self.cells.append(cell)
            before, inputs = (inputs, stride), cell.maps
        self.maps = inputs

    def forward(self, x: Tensor) -> Tensor:
        last, before = x, None
        for cell in self.cells:
            last, before = cell(last, before), last
        return last


class NASNet(Classify):
    """Logits (rows, classes) from `image` (rows, channels, height, width)."""

    Options = NASNetOptions
    card = CARD

    def build(self) -> nn.Module:
        options: NASNetOptions = self.options
        filters, channels = options.filters, self.shape.row["image"][0]
        told = []
        if options.stem == "large":
            maps = _STEM
            stem = nn.Sequential(nn.Conv2d(channels, maps, 3, stride=2, bias=False), _norm(maps))
            told = [(filters // 4, options.reduction, 2), (filters // 2, options.reduction, 2)]
        else:
            maps = 3 * filters
            stem = nn.Sequential(nn.Conv2d(channels, maps, 3, padding=1, bias=False), _norm(maps))
        for stage in range(3):
            wide = filters * 2**stage
            if stage:
                told.append((wide, options.reduction, 2))
            told += [(wide, options.normal, 1)] * options.repeats
        cells = Cells(maps, told)
        head = nn.Sequential(
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(options.dropout),
            nn.Linear(cells.maps, self.shape.classes),
        )
        model = nn.Sequential()
        for name, module in (("stem", stem), ("cells", cells), ("head", head)):
            model.add_module(name, module)
        return model
