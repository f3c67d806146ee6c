"""`kind: sweep` — many trials of one job, to find its best settings.

Trials are chosen by a metric of the validation set alone. The test set is touched once: by the best
trial, at the end; the job's `expect` is held against that trial and no other.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from dlsys.spec.notify import Notify
from dlsys.spec.section import (
    Count,
    Every,
    Interval,
    Name,
    NonNegative,
    NonNegativeInt,
    Number,
    Section,
    Text,
)
from dlsys.spec.train.job import Tracking


def _in_epochs(value: Interval) -> Interval:
    if value.unit != "epoch":
        raise ValueError(f"must be in epochs, such as '9 epochs', got '{value}'")
    return value


Epochs = Annotated[
    Every,
    AfterValidator(_in_epochs),
    WithJsonSchema({"type": "string", "pattern": r"^\s*0*[1-9][0-9]*\s*epochs?\s*$"}),
]


Earlier = Annotated[tuple[Text, ...], Field(max_length=100)]


class Random(Section):
    """Draws each trial at random (Bergstra and Bengio 2012)."""

    name: Literal["random"] = "random"


class Grid(Section):
    """Tries every combination of choices and of evenly spaced values of ranges."""

    name: Literal["grid"]
    per_range: Annotated[Count, Field(le=1000)] = 3
    """Values of each range, both ends among them; a range with fewer gives all it has."""


class TPE(Section):
    """Tree-structured Parzen estimator (Bergstra et al. 2011): draws where good trials are dense."""

    name: Literal["tpe"]
    startup: Count = 10
    """Trials drawn at random before the first estimate."""
    candidates: Count = 24
    """Draws for each trial, of which the most promising one is taken."""
    warm_start: Earlier = ()
    """Earlier sweeps of the same metric, by their ids in MLflow, whose trials it knows from the start."""


class GP(Section):
    """Gaussian process with expected improvement (Snoek et al. 2012)."""

    name: Literal["gp"]
    startup: Count = 5
    """Trials drawn at random before the first estimate."""
    warm_start: Earlier = ()
    """Earlier sweeps of the same metric, by their ids in MLflow, whose trials it knows from the start."""
    xi: NonNegative = 0.01
    """The least improvement that counts, in standard deviations of the metric; more explores more."""


Searcher = Annotated[Random | Grid | TPE | GP, Field(discriminator="name")]


class Fifo(Section):
    """Trains every trial to its end."""

    name: Literal["fifo"] = "fifo"


class Halving(Section):
    """Stops the worse trials at rungs: after `grace`, `grace` × `reduction`, … epochs.

    `successive-halving` (Jamieson and Talwalkar 2015) waits for all trials at a rung; `asha` (Li et
    al. 2018) decides for each as it arrives; `hyperband` (Li et al. 2016) runs several brackets,
    each with a later first rung than the one before.
    """

    name: Literal["successive-halving", "hyperband", "asha"]
    max: Epochs
    """What a trial trains that is never stopped; the same as the job's `stop.epochs`."""
    grace: Epochs = Interval(1, "epoch")
    """The first rung: no trial is stopped before."""
    reduction: Annotated[Count, Field(ge=2)] = 3
    """One of this many trials passes each rung; the next rung is this many times later."""


class Median(Section):
    """Stops a trial whose best value is below the median of the others' means (Golovin et al. 2017)."""

    name: Literal["median"]
    grace: Epochs = Interval(1, "epoch")
    """No trial is stopped before."""
    min_samples: Count = 3
    """How many other trials must have come as far, for a median to mean something."""


class PBT(Section):
    """Population-based training (Jaderberg et al. 2017): worse trials take over better ones' state."""

    name: Literal["pbt"]
    every: Epochs = Interval(1, "epoch")
    """How long trials train between two comparisons."""
    quantile: Annotated[Number, Field(gt=0, le=0.5)] = 0.25
    """The worst share of trials takes over from the best share."""
    resample: Annotated[Number, Field(ge=0, le=1)] = 0.25
    """The probability that a key is drawn anew from the space, and not changed by a fifth."""
    mutate: Annotated[tuple[Text, ...], Field(min_length=1)]
    """The keys of the space that change when a trial takes over: `[optimizer.lr]`."""


Scheduler = Annotated[Fifo | Halving | Median | PBT, Field(discriminator="name")]


class Sweep(Section):
    """One sweep."""

    kind: Literal["sweep"]
    """What sort of file this is."""
    name: Name
    """What the sweep is called."""
    job: Text
    """The `kind: train` file that trials train; its path is relative to this file."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """What is changed in the job for every trial, by dotted keys: `{stop.epochs: 27}`."""
    metric: Text
    """What trials are compared by, of the validation set: `valid/accuracy`."""
    mode: Literal["max", "min"] | None = None
    """Whether the largest or the smallest value is the best; by default what the workload says."""
    space: Annotated[dict[str, Any], Field(min_length=1, max_length=100)]
    """What varies, by dotted keys of the job."""
    searcher: Searcher = Field(default_factory=Random)
    """What chooses the settings of the next trial."""
    scheduler: Scheduler = Field(default_factory=Fifo)
    """What stops trials that are not worth their time."""
    points: tuple[dict[str, Any], ...] = ()
    """Settings that are tried first; keys that one leaves out are drawn at random."""
    trials: Annotated[Count, Field(le=100_000)]
    """How many trials there are at most, those of `points` counted in."""
    concurrent: Count | Literal["auto"] = "auto"
    """How many trials train at a time; `auto` is as many as there is room for."""
    retries: NonNegativeInt = 2
    """How often a trial that crashed goes on from its last checkpoint."""
    seed: Annotated[NonNegativeInt, Field(lt=2**32)] = 0
    """Decides what is drawn; the trials' own seed is the job's."""
    tracking: Tracking | None = None
    """The MLflow experiment and server; what is left out is the job's own."""
    notify: Notify | None = None
    """Who is told when the sweep has ended; by default whom the job tells, and of trials nobody."""
