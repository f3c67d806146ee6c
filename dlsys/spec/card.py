"""A card: what is known of a workload without its code."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dlsys.registry import known
from dlsys.spec.rows import Rows, Shape
from dlsys.spec.section import Section, show
from dlsys.spec.task import Metric, Task


@dataclass(frozen=True)
class Cut:
    """How tensor parallelism cuts one layer among the workers that share a model.

    Attributes:
        style: `column`: each computes some of an affine layer's outputs and keeps them, for a `row`
            layer next to come, whose inputs they are; elementwise layers may stand between.
            `row`: each computes from its inputs a part of every output; the parts are added up.
            `gather`: as `column`, of an affine layer or an embedding, and each then gets all outputs.
            `groups`: each computes some groups of a grouped convolution, and gets all outputs.
        units: what is cut: outputs, inputs (`row`) or groups; None where the data decides.
    """

    style: Literal["column", "row", "gather", "groups"]
    units: int | None = None


def uneven(cuts: Mapping[str, Cut], size: int) -> str:
    """Why `size` workers cannot share every layer equally, and how to mend it; empty if they can."""
    for name, cut in cuts.items():
        if cut.units is not None and cut.units % size:
            common = math.gcd(*(cut.units for cut in cuts.values() if cut.units is not None))
            fits = [n for n in range(1, common + 1) if common % n == 0]
            near = [*(n for n in fits if n < size)][-1:] + [n for n in fits if n > size][:1]
            return (
                f"{size} workers cannot share the {cut.units} {_UNITS[cut.style]} of {name} equally: "
                f"use a size that divides {common}, such as {' or '.join(map(str, near))}"
            )
    return ""


_UNITS = {"column": "outputs", "row": "inputs", "gather": "outputs", "groups": "groups"}

# Strategies that ask nothing of a model.
DATA_PARALLEL = ("single", "ddp", "ring", "ps", "fsdp", "zero")
# Those under which every worker holds the whole model, and can solve for it.
SOLVING = ("single", "ddp", "ring")

# What a model may have that a strategy or a regularizer must know of:
# `dropout`: dropout layers that a regularizer can set;
# `carried-state`: state that goes on from batch to batch;
# `phases`: several optimizers, each with a loss of its own;
# `running-statistics`: buffers that training changes;
# `sequential`: its blocks, each on what the one before gives, are the whole model;
# `solved`: it learns from sums over rows, without gradients.
Trait = Literal["dropout", "carried-state", "phases", "running-statistics", "sequential", "solved"]


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """Options of a model so small that a test can train it in a moment.

    Attributes:
        options: the `model:` section.
        learned: what every phase's loss falls below when it alone learns 16 rows by heart.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    learned: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Card:
    """What must be known of a workload before its code is loaded. Tests hold it against the built model;
    what can be counted (parameters, FLOPs, bytes) is not written here but measured: `dlsys.zoo.measure`.

    Attributes:
        name: what a job file says.
        version: of what it computes; it rises when the same options come to mean other weights.
        title: one line for a listing.
        paper: where it comes from.
        papers: where a preset comes from, if from elsewhere.
        workload: `module:Class` of the code.
        options: the type of the job file's `model:` section.
        task: what it is for, and what is measured.
        takes: the rows that it learns from; by default all that its task takes.
        extra: what it measures besides its task's metrics.
        learns: what its steps tell besides the loss, as `train/…`.
        presets: named sizes: options each, which a job file's own go over (`model: {preset: "50"}`).
        preset: the one that this name stands for by itself, as `resnet-20` does; empty for none.
        published: trainable numbers by preset as the source says, on rows of the shape `at`.
        at: see `published`.
        traits: see `Trait`; those that it has with some options.
        without: strategies that it does not run under, for a reason that no trait tells.
        inexact: from options to why several workers compute not quite the same as one; empty where
            they do, but for dropout.
        library: from options to the library of `dlsys.spec.libraries` that builds the model; empty for none.
        blocks: names of the submodules that make up the whole model. A pipeline may cut between
            them, in this order, where the model is `sequential`; FSDP gathers one at a time.
        tensor_plan: from options to the layers that tensor parallelism cuts, by their names in the
            model (`tables.*` names all of `tables`); the others are whole on every worker.
        experts: from options to the experts of each mixture, which expert parallelism deals out.
        tiny: sizes for tests; each is tested on every small shape of the rows it takes.
    """

    name: str
    version: int = 1
    title: str
    paper: str
    workload: str
    options: type[Section]
    task: Task
    takes: tuple[Rows, ...] = ()
    extra: Mapping[str, Metric] = field(default_factory=dict)
    learns: Mapping[str, Metric] = field(default_factory=dict)
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    preset: str = ""
    published: Mapping[str, int] = field(default_factory=dict)
    papers: Mapping[str, str] = field(default_factory=dict)
    at: Shape | None = None
    traits: tuple[Trait, ...] = ()
    without: tuple[str, ...] = ()
    inexact: Callable[[Any], str] = field(default=lambda options: "", repr=False)
    library: Callable[[Any], str] = field(default=lambda options: "", repr=False)
    blocks: tuple[str, ...] = ()
    tensor_plan: Callable[[Any], Mapping[str, Cut]] | None = field(default=None, repr=False)
    experts: Callable[[Any], int] | None = field(default=None, repr=False)
    tiny: tuple[Tiny, ...] = (Tiny(),)

    @property
    def rows(self) -> tuple[Rows, ...]:
        """The kinds of rows that it learns from."""
        return self.takes or self.task.takes

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """What is measured on validation and test data besides `loss`."""
        return {**self.task.metrics, **self.extra}

    @property
    def strategies(self) -> tuple[str, ...]:
        """The strategies that it runs under."""
        if "solved" in self.traits:
            return tuple(name for name in SOLVING if name not in self.without)
        further = {"pipeline": "sequential" in self.traits, "tensor": self.tensor_plan, "moe": self.experts}
        names = (*DATA_PARALLEL, *(name for name, runs in further.items() if runs))
        # DeepSpeed has one optimizer.
        phases = ("zero",) if "phases" in self.traits else ()
        return tuple(name for name in names if name not in (*self.without, *phases))

    def options_of(self, model: Mapping[str, Any]) -> Any:
        """A job's `model:` section with its preset and all defaults filled in: an instance of `options`.

        Raises:
            ValidationError: unknown keys or wrong values; an unknown preset is `wrong_preset`'s to tell.
        """
        chosen = dict(self.presets.get(str(model.get("preset", self.preset)), {}))
        for name, value in model.items():
            if isinstance(value, Mapping) and isinstance(chosen.get(name), Mapping):
                chosen[name] = {**chosen[name], **value}
            elif name != "preset":
                chosen[name] = value
        return self.options.model_validate(chosen)

    def wrong_preset(self, model: Mapping[str, Any]) -> str:
        """Why the preset that a `model:` section names is none; empty where it names none or a known one."""
        if "preset" not in model or str(model["preset"]) in self.presets:
            return ""
        if not self.presets:
            return f"{self.name} has no presets: leave it out"
        return (
            f"{self.name} has no preset {show(model['preset'])}.{known(str(model['preset']), self.presets)}"
        )

    def uneven_cuts(self, options: Any, size: int) -> str:
        """Why `size` workers cannot share the layers of `tensor_plan` equally; empty if they can."""
        return uneven(self.tensor_plan(options), size) if self.tensor_plan else ""
