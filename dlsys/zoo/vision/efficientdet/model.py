"""EfficientDet (Tan, Pang and Le 2019, arXiv:1911.09070): an EfficientNet, a pyramid that is walked down and
up several times and weighs what it adds, and separable heads shared by all levels.

Norms are group norms, and a level's heads have no norms of their own; the rest is the paper's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.zoo.layers import anchors
from dlsys.zoo.layers.blocks import groups
from dlsys.zoo.layers.focal import begin_rare
from dlsys.zoo.tasks.detect_anchors import Answers, DetectAnchors, focal_loss
from dlsys.zoo.vision.efficientdet.card import CARD, EfficientDetOptions

# EfficientNet-B0 (Tan and Le 2019, arXiv:1905.11946), stage by stage: how much blocks widen within, side of
# their filters, channels, blocks, and stride of the first; the last of each resolution gives a map.
_STAGES = (
    (1, 3, 16, 1, 1),
    (6, 3, 24, 2, 2),
    (6, 5, 40, 2, 2),
    (6, 3, 80, 3, 2),
    (6, 5, 112, 3, 1),
    (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
)
_STEM = 32
# The stages whose maps have an 8th, a 16th and a 32nd of the image's sides.
_TAPS = (2, 4, 6)
_SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
_RATIOS = (1.0, 2.0, 0.5)
_GAMMA, _ALPHA = 1.5, 0.25


class EfficientDet(DetectAnchors):
    """Boxes in `image`; each class is a yes-or-no question."""

    Options = EfficientDetOptions
    card = CARD
    low = DetectAnchors.high

    def build(self) -> nn.Module:
        return EfficientDetNet(self.shape.row["image"][0], self.shape.classes, self.options)

    def class_loss(self, logits: Tensor, answers: Tensor) -> Tensor:
        return focal_loss(logits, answers, gamma=_GAMMA, alpha=_ALPHA)

    def scores(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()


class EfficientDetNet(nn.Module):
    """From images (rows, channels, height, width) to `Answers`."""

    def __init__(self, channels: int, classes: int, options: EfficientDetOptions) -> None:
        super().__init__()
        self.base = Base(channels, options)
        widths, width = self.base.widths[: options.levels], options.width
        self.inputs = nn.ModuleList(nn.Conv2d(inputs, width, 1) for inputs in widths)
        # What the base does not have, the last map halved again and again is.
        self.further = options.levels - len(widths)
        self.rounds = nn.ModuleList(BiFPN(options.levels, width) for _ in range(options.rounds))
        self.shapes = [pair for scale in _SCALES for pair in anchors.shapes([options.size * scale], _RATIOS)]

        def head(outputs: int) -> nn.Sequential:
            hidden = [separable(width, width) for _ in range(options.depth)]
            last = nn.Conv2d(width, len(self.shapes) * outputs, 1)
            return nn.Sequential(*hidden, nn.Conv2d(width, width, 3, padding=1, groups=width), last)

        self.classes, self.offsets = head(classes), head(4)
        last = self.classes[-1]
        assert isinstance(last, nn.Conv2d)
        begin_rare(last, slice(None), each=classes)

    def forward(self, image: Tensor) -> Answers:
        size = (image.shape[2], image.shape[3])
        maps = [change(x) for change, x in zip(self.inputs, self.base(image), strict=False)]
        for _ in range(self.further):
            maps.append(F.max_pool2d(maps[-1], 3, 2, 1))
        for round in self.rounds:
            maps = round(maps)
        classes, offsets = (
            torch.cat([anchors.flat(head(x), len(self.shapes)) for x in maps], 1)
            for head in (self.classes, self.offsets)
        )
        places = [8 * 2**level for level in range(len(maps))]
        pixels = [[(width * side, height * side) for width, height in self.shapes] for side in places]
        return Answers(classes, offsets, anchors.pyramid(maps, size, pixels))


class BiFPN(nn.Module):
    """One walk over a pyramid, down from the smallest map and up again; levels and sizes stay.

    Args:
        levels: maps, the largest first.
        width: channels of each.
    """

    def __init__(self, levels: int, width: int) -> None:
        super().__init__()
        # A map adds two on the way down, and on the way up what came in besides, which the last map has not.
        self.down = nn.ModuleList(Fusion(2, width) for _ in range(levels - 1))
        self.up = nn.ModuleList(Fusion(3 if level < levels - 1 else 2, width) for level in range(1, levels))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        middle = [maps[-1]]
        for own, fuse in zip(maps[-2::-1], self.down, strict=True):
            larger = F.interpolate(middle[-1], size=own.shape[-2:], mode="nearest")
            middle.append(fuse([own, larger]))
        middle.reverse()
        found = middle[:1]
        for level, fuse in enumerate(self.up, 1):
            smaller = F.adaptive_max_pool2d(found[-1], maps[level].shape[-2:])
            came = [maps[level], middle[level]] if level < len(maps) - 1 else [maps[level]]
            found.append(fuse([*came, smaller]))
        return found


class Fusion(nn.Module):
    """The weighted mean of maps of one size, and a separable convolution.

    Weights are positive and add up to just under 1 (the paper's fast normalized fusion).
    """

    def __init__(self, maps: int, width: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(maps))
        self.change = separable(width, width)

    def shares(self) -> Tensor:
        """What each map counts: (maps,)."""
        weights = self.weights.relu()
        return weights / (weights.sum() + 1e-4)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        mean = sum(share * map for share, map in zip(self.shares(), maps, strict=True))
        changed: Tensor = self.change(F.silu(mean))
        return changed


class Base(nn.Module):
    """An EfficientNet without its head: from images to its maps of an 8th, a 16th and a 32nd of their
    sides."""

    def __init__(self, channels: int, options: EfficientDetOptions) -> None:
        super().__init__()

        def wide(channels: int) -> int:
            """As many times wider, a multiple of 8, and no more than a tenth less wide than that."""
            exact = channels * options.base_width
            near = max(8, int(exact + 4) // 8 * 8)
            return near + 8 if near < 0.9 * exact else near

        width = wide(_STEM)
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.GroupNorm(groups(width), width), nn.SiLU()
        )
        stages, self.widths = [], []
        for number, (widening, side, outputs, count, stride) in enumerate(_STAGES):
            blocks = []
            for place in range(math.ceil(count * options.base_depth)):
                blocks.append(Inverted(width, wide(outputs), widening, side, 1 if place else stride))
                width = wide(outputs)
            stages.append(nn.Sequential(*blocks))
            if number in _TAPS:
                self.widths.append(width)
        # Stages behind the last map that is asked for would learn nothing.
        self.stages = nn.ModuleList(stages[: _TAPS[min(options.levels, len(_TAPS)) - 1] + 1])

    def forward(self, image: Tensor) -> list[Tensor]:
        x, maps = self.stem(image), []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in _TAPS:
                maps.append(x)
        return maps


class Inverted(nn.Module):
    """EfficientNet's block: widen, filter each channel, weigh channels by what all places show, narrow."""

    def __init__(self, inputs: int, outputs: int, widening: int, side: int, stride: int) -> None:
        super().__init__()
        width = inputs * widening
        widen = [nn.Conv2d(inputs, width, 1, bias=False), nn.GroupNorm(groups(width), width), nn.SiLU()]
        self.filter = nn.Sequential(
            *(widen if widening > 1 else []),
            nn.Conv2d(width, width, side, stride, side // 2, groups=width, bias=False),
            nn.GroupNorm(groups(width), width),
            nn.SiLU(),
        )
        squeezed = max(1, inputs // 4)
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, squeezed, 1),
            nn.SiLU(),
            nn.Conv2d(squeezed, width, 1),
            nn.Sigmoid(),
        )
        self.narrow = nn.Sequential(
            nn.Conv2d(width, outputs, 1, bias=False), nn.GroupNorm(groups(outputs), outputs)
        )
        self.passes = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        filtered = self.filter(x)
        changed: Tensor = self.narrow(filtered * self.weigh(filtered))
        return x + changed if self.passes else changed


def separable(inputs: int, outputs: int) -> nn.Sequential:
    """A convolution in each channel, one across channels, group norm and SiLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1),
        nn.GroupNorm(groups(outputs), outputs),
        nn.SiLU(),
    )
