"""Inception-v4's modules: figures 3 to 9 of Szegedy et al. 2017, arXiv:1602.07261."""

from __future__ import annotations

from dlsys.zoo.layers.inception import Branch, Conv, Fork, Pool


def _half(maps: int) -> Conv:
    """A convolution that halves height and width."""
    return Conv(maps, 3, stride=2, padded=False)


STEM: Branch = (
    *(_half(32), Conv(32, 3, padded=False), Conv(64, 3)),
    Fork(((Pool("max", stride=2),), (_half(96),))),
    Fork(
        (
            (Conv(64), Conv(96, 3, padded=False)),
            (Conv(64), Conv(64, (1, 7)), Conv(64, (7, 1)), Conv(96, 3, padded=False)),
        )
    ),
    Fork(((_half(192),), (Pool("max", stride=2),))),
)
LARGE: tuple[Branch, ...] = (
    (Conv(96),),
    (Conv(64), Conv(96, 3)),
    (Conv(64), Conv(96, 3), Conv(96, 3)),
    (Pool("average"), Conv(96)),
)
TO_MEDIUM: tuple[Branch, ...] = (
    (_half(384),),
    (Conv(192), Conv(224, 3), _half(256)),
    (Pool("max", stride=2),),
)
MEDIUM: tuple[Branch, ...] = (
    (Conv(384),),
    (Conv(192), Conv(224, (1, 7)), Conv(256, (7, 1))),
    (Conv(192), Conv(192, (7, 1)), Conv(224, (1, 7)), Conv(224, (7, 1)), Conv(256, (1, 7))),
    (Pool("average"), Conv(128)),
)
TO_SMALL: tuple[Branch, ...] = (
    (Conv(192), _half(192)),
    (Conv(256), Conv(256, (1, 7)), Conv(320, (7, 1)), _half(320)),
    (Pool("max", stride=2),),
)
_CROSS = Fork(((Conv(256, (1, 3)),), (Conv(256, (3, 1)),)))
SMALL: tuple[Branch, ...] = (
    (Conv(256),),
    (Conv(384), _CROSS),
    (Conv(384), Conv(448, (3, 1)), Conv(512, (1, 3)), _CROSS),
    (Pool("average"), Conv(256)),
)
