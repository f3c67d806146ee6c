"""How settings change when a trial of a population takes over another's state.

Jaderberg et al. 2017, https://arxiv.org/abs/1711.09846, section 4.1.1: `explore` by perturbation, or
by resampling.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Mapping
from typing import Any

from dlsys.spec.sweep import space
from dlsys.spec.sweep.entries import Choice, Range, Uniform, Whole
from dlsys.spec.sweep.space import Node, Space

_FACTORS = (0.8, 1.2)


def perturb(
    tree: Space, settings: Mapping[str, Any], mutate: Collection[str], resample: float, rng: random.Random
) -> dict[str, Any]:
    """A donor's settings, changed: a pure function of these and of the generator's state.

    Args:
        tree: the sweep's space.
        settings: a value of it.
        mutate: the keys that change.
        resample: the probability that a key is drawn anew. Otherwise each of its ranges is multiplied
            by 0.8 or 1.2, and kept among its values; a whole or stepped one moves by a step at least,
            unless it is at that end. A choice takes an option beside its own, whose own entries are
            drawn; if its own option has entries, it keeps that and changes those.
        rng: what decides.
    """
    changed = dict(settings)
    for key in mutate:
        again = rng.random() < resample
        changed[key] = _draw(tree[key], rng) if again else _nudge(tree[key], settings[key], rng)
    return changed


def _draw(node: Node, rng: random.Random) -> Any:
    part = {"": node}
    return space.from_cube(part, [rng.random() for _ in range(space.width(part))])[""]


def _nudge(node: Node, value: Any, rng: random.Random) -> Any:
    if isinstance(node, Range):
        return _scale(node, value, rng.choice(_FACTORS))
    if isinstance(node, Choice):
        options = node.choice
        own = next(i for i, option in enumerate(options) if space.holds(option, value))
        if any(True for _ in space.entries(options[own])):
            return _nudge(options[own], value, rng)
        beside = [i for i in (own - 1, own + 1) if 0 <= i < len(options)]
        return _draw(options[rng.choice(beside)], rng) if beside else value
    if isinstance(node, Mapping):
        return {key: _nudge(part, value[key], rng) for key, part in node.items()}
    if isinstance(node, list):
        return [_nudge(part, item, rng) for part, item in zip(node, value, strict=True)]
    return value


def _scale(node: Range, value: float, factor: float) -> float:
    """A range's value times a factor, moved to one of the range's own values."""
    low, high = node.ends
    scaled = min(max(value * factor, low), high)
    step = 1 if isinstance(node, Whole) and node.step is None else getattr(node, "step", None)
    if step is None:
        return node.at(node.where(scaled))
    assert isinstance(node, Uniform | Whole), "the ranges that have steps"
    last = math.floor((high - low) / step + 1e-9)  # 1e-9: 0.3 / 0.1 is a little less than 3
    now, to = round((value - low) / step), round((scaled - low) / step)
    if to == now:
        to += 1 if (factor > 1) == (value >= 0) else -1
    at = low + min(max(to, 0), last) * step
    return node.at(node.where(at))
