"""The one form in which networks of our own see: all numbers as one vector, and each image by itself.

Dictionaries, tuples, categories, stacked frames and images in either order become the same few arrays,
whoever trains, evaluates, records or exports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, nn

from dlsys.errors import UsageError
from dlsys.spec.rl.spaces import MASK, Leaf, Picture, is_pixels, leaves, picture, unserved

NUMBERS = "numbers"
# What an image is called that is all there is to see.
_WHOLE = "image"

Seen = dict[str, NDArray[Any]]
"""By name: `numbers` [O], images [height, width, channels], `action_mask` [K]; of many, with leading axes."""


class Observations:
    """Of one environment.

    Args:
        space: what it shows.
        mask: how many numbers its `info` has under `action_mask`, which says what is legal; 0 if none. One in
            a dictionary of observations is found.

    Attributes:
        shapes: of what is seen, by name.
        types: likewise: images of bytes stay bytes, the mask is of truths, all else is float32.
        pictures: how each image is read.
    """

    def __init__(self, space: spaces.Space[Any], mask: int = 0) -> None:
        if kind := unserved(space):
            raise UsageError(
                f"observations of {kind} have no fixed number of numbers: put a wrapper around them"
            )
        self.space = space
        self._mask: Leaf | None = None
        self.pictures: dict[str, Picture] = {}
        self._images: list[tuple[str, Leaf, Picture]] = []
        self._numbers: list[tuple[Leaf, int]] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.types: dict[str, np.dtype[Any]] = {}
        for leaf in leaves(space):
            if leaf.path == (MASK,):
                self._mask, mask = leaf, int(np.prod(leaf.space.shape or ()))
            elif (read := picture(leaf.space)) is not None:
                name = leaf.name or _WHOLE
                self._images.append((name, leaf, read))
                self.pictures[name] = read
                self.shapes[name] = read.shape(leaf.space.shape or ())
                whole = leaf.space.dtype == np.uint8
                self.types[name] = np.dtype(np.uint8 if whole else np.float32)
            else:
                self._numbers.append((leaf, spaces.flatdim(leaf.space)))
        if self._numbers:
            self.shapes = {NUMBERS: (sum(size for _, size in self._numbers),), **self.shapes}
            self.types = {NUMBERS: np.dtype(np.float32), **self.types}
        if mask:
            self.shapes[MASK], self.types[MASK] = (mask,), np.dtype(np.bool_)
        # A vector is itself: nothing to do at each step.
        only = self._numbers[0][0] if len(self._numbers) == 1 else None
        self._vector = only is not None and only.path == () and isinstance(only.space, spaces.Box)
        self._vector = self._vector and len(space.shape or ()) == 1 and not is_pixels(space)

    @staticmethod
    def of(env: gymnasium.Env[Any, Any]) -> Observations:
        """Those of an environment, which is reset once to see whether its `info` has a mask."""
        space = env.observation_space
        if isinstance(space, spaces.Dict) and MASK in space.spaces:
            return Observations(space)
        _, info = env.reset(seed=0)
        asked = asks(env)
        found = info.get(MASK) if asked is None else asked()
        return Observations(space, 0 if found is None else int(np.size(found)))

    @property
    def masked(self) -> bool:
        """Whether `info` tells what is legal, rather than the observation."""
        return MASK in self.shapes and self._mask is None

    @property
    def notes(self) -> list[str]:
        """What could have been read otherwise."""
        return [
            f"observations {leaf.name or 'of the environment'} of shape {leaf.space.shape} are read as "
            "[height, width, channels], and could be otherwise: TransformObservation around them decides"
            for _, leaf, read in self._images
            if not read.certain
        ]

    def seen(self, observation: Any, info: Mapping[str, Any] | None = None) -> Seen:
        """What networks see of one observation, and of what the environment tells besides."""
        found: Seen = {}
        if self._vector:
            found[NUMBERS] = observation
        elif self._numbers:
            found[NUMBERS] = np.concatenate(
                [_vector(leaf.space, leaf.of(observation)) for leaf, _ in self._numbers]
            )
        for name, leaf, read in self._images:
            value = np.asarray(leaf.of(observation))
            found[name] = value.transpose(read.order(value.ndim)).reshape(self.shapes[name])
        if self._mask is not None:
            found[MASK] = np.asarray(self._mask.of(observation)).reshape(-1)
        elif MASK in self.shapes:
            given = None if info is None else info.get(MASK)
            found[MASK] = np.ones(self.shapes[MASK], bool) if given is None else np.asarray(given).reshape(-1)
        return found

    def empty(self, *lead: int) -> Seen:
        """Arrays for many of them."""
        return {name: np.empty((*lead, *shape), self.types[name]) for name, shape in self.shapes.items()}

    def stack(self, seen: Sequence[Seen]) -> Seen:
        """N of them as arrays [N, …]."""
        into = self.empty(len(seen))
        for index, one in enumerate(seen):
            write(into, index, one)
        return into


def asks(env: gymnasium.Env[Any, Any]) -> Callable[[], Any] | None:
    """What tells the legal actions when it is asked, as environments for Stable-Baselines3 have it."""
    try:
        found: Callable[[], Any] = env.get_wrapper_attr("action_masks")
    except AttributeError:
        return None
    return found


def write(into: Seen, place: Any, seen: Seen) -> None:
    """Puts what is seen at a place of larger arrays."""
    for name, value in seen.items():
        into[name][place] = value


def tensors(seen: Mapping[str, NDArray[Any]], device: torch.device | str = "cpu") -> dict[str, Tensor]:
    return {name: torch.from_numpy(value).to(device) for name, value in seen.items()}


def _vector(space: spaces.Space[Any], value: Any) -> NDArray[np.float32]:
    if isinstance(space, spaces.Discrete):
        return (np.arange(int(space.n)) == value - space.start).astype(np.float32)
    if isinstance(space, spaces.MultiDiscrete):
        indices, counts = (np.asarray(value) - space.start).ravel(), [int(n) for n in space.nvec.ravel()]
        return np.concatenate(
            [np.arange(count) == index for count, index in zip(counts, indices, strict=True)]
        ).astype(np.float32)
    numbers = np.asarray(value, np.float32).ravel()
    return numbers / np.float32(255) if is_pixels(space) else numbers


class See(nn.Module):
    """`Observations.seen` of many, for files that need only torch.

    Args:
        observations: the environment's.
    """

    def __init__(self, observations: Observations) -> None:
        super().__init__()
        self._of = observations

    def forward(self, observation: Any, mask: Tensor | None = None) -> dict[str, Tensor]:
        """What is seen [N, …] of N observations in the environment's own form, each array [N, …].

        Args:
            observation: an array, or a dictionary or tuple of them.
            mask: of legal actions [N, K], where the environment tells it in `info`.
        """
        of, found = self._of, {}
        if of._numbers:
            parts = [_vectors(leaf.space, leaf.of(observation)) for leaf, _ in of._numbers]
            found[NUMBERS] = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
        for name, leaf, read in of._images:
            value = leaf.of(observation)
            order = (0, *(axis + 1 for axis in read.order(value.ndim - 1)))
            found[name] = value.permute(order).reshape(-1, *of.shapes[name])
        if of._mask is not None:
            found[MASK] = of._mask.of(observation).flatten(1).bool()
        elif mask is not None:
            found[MASK] = mask.flatten(1).bool()
        return found


def _vectors(space: spaces.Space[Any], value: Tensor) -> Tensor:
    if isinstance(space, spaces.Discrete):
        return nn.functional.one_hot((value - int(space.start)).long(), int(space.n)).float()
    if isinstance(space, spaces.MultiDiscrete):
        indices = (value - torch.as_tensor(space.start)).reshape(value.shape[0], -1).long()
        counts = [int(count) for count in space.nvec.ravel()]
        each = [nn.functional.one_hot(indices[:, place], count) for place, count in enumerate(counts)]
        return torch.cat(each, 1).float()
    numbers = value.float().reshape(value.shape[0], -1)
    return numbers / 255 if is_pixels(space) else numbers
