"""What the spaces of gymnasium hold, however they are nested: leaves, each with the way to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

# A bound beyond this is a way to say that there is none: the range between two would overflow float32, and
# whole numbers have no infinity, so that their type's ends stand for it.
_NO_BOUND, _NO_WHOLE_BOUND = 1e30, 2e9
# An image has this many rows and columns at least: less is a table of numbers.
_SIDE = 8
# The entry of a dictionary of observations that says which actions are legal.
MASK = "action_mask"


class Leaf(NamedTuple):
    """A space that holds no other, and the keys that lead to it."""

    path: tuple[str | int, ...]
    space: spaces.Space[Any]

    @property
    def name(self) -> str:
        return ".".join(map(str, self.path))

    def of(self, value: Any) -> Any:
        """The leaf's part of an element of the whole space."""
        for key in self.path:
            value = value[key]
        return value


def leaves(space: spaces.Space[Any], path: tuple[str | int, ...] = ()) -> Iterator[Leaf]:
    """All of them, in the order of the space."""
    if isinstance(space, spaces.Dict):
        for name, part in space.items():
            yield from leaves(part, (*path, name))
    elif isinstance(space, spaces.Tuple):
        for index, part in enumerate(space):
            yield from leaves(part, (*path, index))
    else:
        yield Leaf(path, space)


PLAIN = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
"""Leaves that have a fixed number of numbers."""


def unserved(space: spaces.Space[Any]) -> str:
    """The kind of the first space in it that nothing here serves, and where it is; empty if all is served."""
    for leaf in leaves(space):
        if not isinstance(leaf.space, PLAIN):
            kind = type(leaf.space).__name__
            return f"{type(space).__name__} ({leaf.name}: {kind})" if leaf.path else kind
    return ""


def bounded(space: spaces.Box) -> NDArray[np.bool_]:
    """Which numbers of a box have two bounds, of its shape."""
    whole = np.issubdtype(space.dtype, np.integer)
    bound = _NO_WHOLE_BOUND if whole else _NO_BOUND
    found: NDArray[np.bool_] = (np.abs(space.low.astype(np.float64)) < bound) & (
        np.abs(space.high.astype(np.float64)) < bound
    )
    return found


class Picture(NamedTuple):
    """How a box is read as an image.

    Attributes:
        rows: the axis of its rows; the next one is that of its columns, all others are channels.
        low, high: what is nought and one.
        certain: whether it could be read in one way alone.
    """

    rows: int
    low: float
    high: float
    certain: bool

    def shape(self, box: tuple[int, ...]) -> tuple[int, int, int]:
        """[height, width, channels] of a box of this shape."""
        height, width = box[self.rows], box[self.rows + 1]
        return height, width, int(np.prod(box)) // (height * width)

    def order(self, axes: int) -> tuple[int, ...]:
        """The box's axes: rows, columns, and then those of the channels."""
        sides = (self.rows, self.rows + 1)
        return (*sides, *(axis for axis in range(axes) if axis not in sides))


def picture(space: spaces.Space[Any]) -> Picture | None:
    """How a space is read as an image, or None where it is none.

    An image has two sides of eight at least, and values between the same two bounds everywhere. Its rows and
    columns are the two neighbouring axes that have the most entries, whichever side the channels stand on,
    and stacked frames are channels; where two pairs of axes have as many, the first one is it, as gymnasium
    has it.
    """
    if not isinstance(space, spaces.Box) or len(space.shape) < 2 or not bounded(space).all():
        return None
    low, high = float(space.low.min()), float(space.high.max())
    if float(space.low.max()) != low or float(space.high.min()) != high or low >= high:
        return None
    sizes = [space.shape[axis] * space.shape[axis + 1] for axis in range(len(space.shape) - 1)]
    rows = int(np.argmax(sizes))
    if min(space.shape[rows : rows + 2]) < _SIDE:
        return None
    return Picture(rows, low, high, sizes.count(sizes[rows]) == 1)


def is_pixels(space: spaces.Space[Any]) -> bool:
    """Whether its numbers are bytes, which are nothing like what stands beside them until they are scaled."""
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and bool((space.high == 255).all())
