"""Inception-v3 (Szegedy et al. 2016, arXiv:1512.00567), without its auxiliary classifier.

Where the paper's figures leave a width open, it is its authors' code's. Between the stages, convolutions
and a pooling of stride 2 halve the maps side by side, so that none is a bottleneck (section 5).
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from dlsys.zoo.layers.inception import Branch, Conv, Fork, Inception, Pool, sequence, slimmed
from dlsys.zoo.tasks.classify import Classify
from dlsys.zoo.vision.inception_v3.card import CARD, InceptionV3Options

STEMS: dict[str, Branch] = {
    "small": (Conv(192, 3),),
    "large": (
        *(Conv(32, 3, stride=2, padded=False), Conv(32, 3, padded=False), Conv(64, 3)),
        *(Pool("max", stride=2), Conv(80, padded=False), Conv(192, 3, padded=False), Pool("max", stride=2)),
    ),
}


def large(pooled: int) -> tuple[Branch, ...]:
    """Figure 5: 5 × 5 windows as two of 3 × 3, and one that the code kept; `pooled` maps of a pooling."""
    return (
        (Conv(64),),
        (Conv(48), Conv(64, 5)),
        (Conv(64), Conv(96, 3), Conv(96, 3)),
        (Pool("average"), Conv(pooled)),
    )


def medium(inner: int) -> tuple[Branch, ...]:
    """Figure 6: 7 × 7 windows as 1 × 7 and 7 × 1, of `inner` maps."""
    return (
        (Conv(192),),
        (Conv(inner), Conv(inner, (1, 7)), Conv(192, (7, 1))),
        (
            *(Conv(inner), Conv(inner, (7, 1)), Conv(inner, (1, 7))),
            *(Conv(inner, (7, 1)), Conv(192, (1, 7))),
        ),
        (Pool("average"), Conv(192)),
    )


_CROSS = Fork(((Conv(384, (1, 3)),), (Conv(384, (3, 1)),)))
# Figure 7: at the end of few pixels, many maps.
SMALL: tuple[Branch, ...] = (
    (Conv(320),),
    (Conv(384), _CROSS),
    (Conv(448), Conv(384, 3), _CROSS),
    (Pool("average"), Conv(192)),
)
TO_MEDIUM: tuple[Branch, ...] = (
    (Conv(384, 3, stride=2, padded=False),),
    (Conv(64), Conv(96, 3), Conv(96, 3, stride=2, padded=False)),
    (Pool("max", stride=2),),
)
TO_SMALL: tuple[Branch, ...] = (
    (Conv(192), Conv(320, 3, stride=2, padded=False)),
    (Conv(192), Conv(192, (1, 7)), Conv(192, (7, 1)), Conv(192, 3, stride=2, padded=False)),
    (Pool("max", stride=2),),
)
# The paper's modules, and fewer of them.
_POOLED = (32, 64, 64)
_INNER = (128, 160, 160, 192)


class InceptionV3(Classify):
    """Logits (rows, classes) from `image` (rows, channels, height, width)."""

    Options = InceptionV3Options
    card = CARD

    def build(self) -> nn.Module:
        options: InceptionV3Options = self.options
        first, second, third = options.modules
        stages = {
            "large": [large(_POOLED[min(place, 2)]) for place in range(first)],
            "medium": [TO_MEDIUM, *(medium(_INNER[min(place, 3)]) for place in range(second))],
            "small": [TO_SMALL, *[SMALL] * third],
        }
        (steps,) = slimmed([STEMS[options.stem]], options.width)
        stem, maps = sequence(self.shape.row["image"][0], steps)
        layers: OrderedDict[str, nn.Module] = OrderedDict(stem=stem)
        for name, modules in stages.items():
            stage = nn.Sequential()
            for branches in modules:
                module = Inception(maps, slimmed(branches, options.width))
                stage.append(module)
                maps = module.maps
            layers[name] = stage
        layers["head"] = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(options.dropout),
            nn.Linear(maps, self.shape.classes),
        )
        return nn.Sequential(layers)
