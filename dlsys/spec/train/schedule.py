"""`schedule:` — how the learning rate moves. A step is one optimizer update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dlsys.spec.section import Count, Fraction, NonNegativeInt, Number, Positive, Section, Text


class _Schedule(Section):
    # The optimizer's fields that it sets itself, each with its own field that decides it.
    SETS: ClassVar[Mapping[str, str]] = {}

    warmup: NonNegativeInt = 0
    """Steps over which the rate first rises in a straight line from almost 0."""


class Constant(_Schedule):
    """The optimizer's own rate throughout."""

    name: Literal["constant"] = "constant"


class Power(_Schedule):
    """η₀·(1 + t/s)^(−c)."""

    name: Literal["power-schedule"]
    s: Positive = 1000
    """Steps after which the rate is halved (with c = 1)."""
    c: Positive = 1.0
    """The exponent."""


class Exponential(_Schedule):
    """η₀·0.1^(t/s): a factor of ten every s steps."""

    name: Literal["exponential-schedule"]
    s: Positive = 1000
    """Steps for a factor of ten."""


class ExponentialDecay(_Schedule):
    """Times a constant after every epoch."""

    name: Literal["exponential-decay"]
    gamma: Annotated[Number, Field(gt=0, le=1)] = 0.95
    """The constant, once an epoch."""


class Piecewise(_Schedule):
    """A step function: factor[i] between boundary[i−1] and boundary[i]."""

    name: Literal["piecewise-schedule"]
    boundaries: tuple[Count, ...]
    """Steps at which the rate changes, rising."""
    factors: tuple[Positive, ...]
    """What the base rate is multiplied with; one more than the boundaries."""


class StepDecay(_Schedule):
    """Times a factor every few epochs."""

    name: Literal["step-decay"]
    epochs: Count = 10
    """Epochs between two cuts."""
    gamma: Annotated[Number, Field(gt=0, lt=1)] = 0.1
    """The factor of each cut."""


class Performance(_Schedule):
    """Times a factor when a metric has stopped to improve."""

    name: Literal["performance-schedule"]
    metric: Text = "valid/loss"
    """The metric that is watched, at each evaluation."""
    gamma: Annotated[Number, Field(gt=0, lt=1)] = 0.5
    """The factor of each cut."""
    patience: NonNegativeInt = 3
    """Evaluations without improvement that are let pass."""
    min_lr: Annotated[Number, Field(ge=0)] = 0.0
    """The rate is never cut below this."""


class OneCycle(_Schedule):
    """Rate up and then down, momentum down and then up (Smith 2018)."""

    SETS: ClassVar[Mapping[str, str]] = {"lr": "max_lr", "momentum": "max_momentum"}

    name: Literal["one-cycle"]
    max_lr: Positive
    """The rate at the peak."""
    pct_start: Annotated[Number, Field(gt=0, lt=1)] = 0.3
    """The share of all steps before the peak."""
    base_momentum: Fraction = 0.85
    """Momentum (or Adam's β₁) at the peak."""
    max_momentum: Fraction = 0.95
    """Momentum at both ends."""
    div_factor: Positive = 25.0
    """The first rate is max_lr / div_factor."""
    final_div_factor: Positive = 1e4
    """The last rate is the first one / final_div_factor."""


class Cosine(_Schedule):
    """Half a cosine from the base rate down to `min_lr` (Loshchilov and Hutter 2016)."""

    name: Literal["cosine-annealing"]
    min_lr: Annotated[Number, Field(ge=0)] = 0.0
    """The rate at the last step."""


class Cyclical(_Schedule):
    """Up and down between two rates for ever (Smith 2015)."""

    name: Literal["cyclical-lr"]
    max_lr: Positive
    """The upper rate; the optimizer's `lr` is the lower one."""
    step_size: Count = 2000
    """Steps of half a cycle."""
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular"
    """Whether, and how, the amplitude shrinks from cycle to cycle."""
    gamma: Annotated[Number, Field(gt=0, le=1)] = 1.0
    """The base of exp_range."""


class Annealing(_Schedule):
    """η₀ / √(1 + t/s): slow enough to arrive, fast enough to settle (Robbins and Monro 1951)."""

    name: Literal["sgd-annealing"]
    s: Positive = 1.0
    """Steps after which the rate has fallen to 1/√2."""


Schedule = Annotated[
    Constant
    | Power
    | Exponential
    | ExponentialDecay
    | Piecewise
    | StepDecay
    | Performance
    | OneCycle
    | Cosine
    | Cyclical
    | Annealing,
    Field(discriminator="name"),
]

# Schedules whose curve needs to know how many steps there will be.
NEEDS_TOTAL = ("one-cycle", "cosine-annealing")
