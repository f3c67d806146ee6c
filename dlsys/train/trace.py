"""What a run computed, step by step, and how two runs that should agree differ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

# Sums in another order differ in the last bits of fp32, and training carries that on. Norms are
# held to less than losses: near a minimum the gradient is a small difference of large sums.
LOSS_TOLERANCE = 1e-5
NORM_TOLERANCE = 1e-3
WEIGHT_TOLERANCE = 1e-4
# Below this share of the largest value so far, a loss is held against that largest value.
_SMALL = 1e-3


@dataclass(frozen=True)
class Trace:
    """One run.

    Attributes:
        losses: the training loss of each step, by its number from 1: the sum over all phases.
        norms: the gradient's norm before clipping.
        weights: the model after the last step, by parameter name.
    """

    losses: Mapping[int, float]
    norms: Mapping[int, float]
    weights: Mapping[str, Tensor]

    @classmethod
    def of(cls, points: Mapping[str, Mapping[int, float]], weights: Mapping[str, Tensor]) -> Trace:
        """From metrics logged at every step, by name and step."""
        losses: dict[int, float] = {}
        for name, values in points.items():
            if name == "train/loss" or name.startswith("train/loss/"):
                for step, value in values.items():
                    losses[step] = losses.get(step, 0.0) + value
        return cls(losses, dict(points.get("train/grad_norm", {})), dict(weights))


@dataclass(frozen=True)
class Difference:
    """How far a run is from the reference.

    Attributes:
        loss: the largest relative difference of a step's loss.
        norm: the same of the gradient's norm; None where there is none.
        weight: the largest absolute difference of a parameter.
        tensor: the parameter that has it.
        first_step: the first step whose loss or norm is out of tolerance; None if none is.
        problems: what is out of tolerance or missing, in words; empty when the runs agree.
    """

    loss: float
    norm: float | None
    weight: float
    tensor: str
    first_step: int | None
    problems: tuple[str, ...] = field(default=())

    @property
    def agrees(self) -> bool:
        return not self.problems


def compare(reference: Trace, other: Trace) -> Difference:
    """Holds a run against the reference; both of the same job with the same number of steps."""
    problems = []
    if reference.losses.keys() != other.losses.keys():
        problems.append(f"logged {len(other.losses)} steps, not {len(reference.losses)}")
    losses = _relative(reference.losses, other.losses)
    norms = _relative(reference.norms, other.norms)
    loss = max(losses.values(), default=0.0)
    norm = max(norms.values(), default=None)  # what is solved for has no gradient
    bad_loss = [step for step, value in losses.items() if not value <= LOSS_TOLERANCE]
    bad_norm = [step for step, value in norms.items() if not value <= NORM_TOLERANCE]
    if bad_loss:
        problems.append(f"loss differs from step {min(bad_loss)}, by up to {loss:.1e}")
    if bad_norm:
        problems.append(f"gradient norm differs from step {min(bad_norm)}, by up to {norm:.1e}")
    if reference.weights.keys() != other.weights.keys():
        apart = sorted(reference.weights.keys() ^ other.weights.keys())
        problems.append(f"only one has {', '.join(apart[:3])}")
    weights = {
        name: _farthest(weight, other.weights[name])
        for name, weight in reference.weights.items()
        if name in other.weights and (weight.is_floating_point() or weight.is_complex())
    }
    tensor = max(weights, key=lambda name: _order(weights[name]), default="")
    weight = weights.get(tensor, 0.0)
    if not weight <= WEIGHT_TOLERANCE:
        problems.append(f"{tensor} differs by {weight:.1e}")
    first = min([*bad_loss, *bad_norm], default=None)
    return Difference(loss, norm, weight, tensor, first, tuple(problems))


def _relative(reference: Mapping[int, float], other: Mapping[int, float]) -> dict[int, float]:
    """Relative differences by step; a NaN on either side is an infinite one."""
    largest, found = 0.0, {}
    for step in sorted(reference.keys() & other.keys()):
        a, b = reference[step], other[step]
        largest = max(largest, abs(a))
        scale = max(abs(a), _SMALL * largest)
        difference = abs(a - b) / scale if scale else abs(b)
        found[step] = difference if math.isfinite(difference) else math.inf
    return found


def _farthest(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        return math.inf
    # Infinities that are equal, as in a mask, are no difference.
    return float((a - b).abs().masked_fill(a == b, 0.0).max()) if a.numel() else 0.0


def _order(value: float) -> float:
    return math.inf if math.isnan(value) else value
