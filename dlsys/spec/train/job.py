"""`kind: train` — what to train, where and how. Validation is pure: it looks at no machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from dlsys.spec.card import Card
from dlsys.spec.catalogue import WORKLOADS
from dlsys.spec.data import OwnSource, Source
from dlsys.spec.notify import Notify
from dlsys.spec.section import (
    Bool,
    Bound,
    Count,
    Every,
    EveryOrTime,
    Interval,
    Name,
    NonNegative,
    NonNegativeInt,
    Number,
    Positive,
    Seconds,
    Section,
    Text,
)
from dlsys.spec.train.average import Average
from dlsys.spec.train.initial import TrainInit
from dlsys.spec.train.objective import Objective, OwnLoss
from dlsys.spec.train.optimizer import SGD, Optimizer
from dlsys.spec.train.regularizer import Regularizer
from dlsys.spec.train.schedule import Constant, Performance, Schedule
from dlsys.spec.train.strategy import PS, Pipeline, Strategy
from dlsys.spec.yaml import Path


class Gradient(Section):
    """What happens to gradients before the optimizer sees them."""

    accumulate: Count = 1
    """Micro-batches a worker adds up before one update; the result stays the same."""
    clip_norm: Positive | None = None
    """Scales the whole gradient down to this norm."""
    clip_value: Positive | None = None
    """Cuts each element to ± this value."""


class Processes(Section):
    """How many processes there are, and what each needs of a machine or a cluster."""

    workers: Annotated[Count, Field(le=10_000)] = 1
    """Processes that train together."""
    cpus: Annotated[Number, Field(gt=0, le=4096)] = 1
    """CPU cores for each worker."""
    gpus: Annotated[Number, Field(ge=0, le=64)] = 0
    """GPUs for each worker; a part of one is allowed."""

    @property
    def bundles(self) -> list[dict[str, float]]:
        """What each process needs, as Ray calls it; rank 0's first."""
        return [amounts(self.cpus, self.gpus)] * self.workers

    def described(self, what: str) -> str:
        """How much of `CPUs` or `GPUs` all of it takes, for messages."""
        return f"{self.workers} workers × {self.cpus if what == 'CPUs' else self.gpus:g} {what}"


class Resources(Processes):
    """What the job needs of a machine or a cluster."""

    workers: Annotated[Count, Field(le=10_000)] = 1
    """Processes that train together; `batch_size` is divided among them."""
    launcher: Literal["actors", "train"] = "actors"
    """Several workers are plain Ray actors, which start twice as fast, or Ray Train's TorchTrainer."""


def amounts(cpus: float, gpus: float) -> dict[str, float]:
    """What a process needs, as Ray calls it."""
    return {key: float(value) for key, value in (("CPU", cpus), ("GPU", gpus)) if value}


class Stop(Section):
    """The run ends as soon as one of these holds; at least one bound must be given."""

    epochs: Count | None = None
    """Passes over the training set."""
    steps: Count | None = None
    """Optimizer updates."""
    time: Seconds | None = None
    """Wall time of training, resumed runs counted in: `90 s`, `10 minutes`."""
    target: dict[str, Bound] = Field(default_factory=dict)
    """Metrics that are good enough: `{valid/accuracy: ">= 0.98"}`; all of them must hold."""
    patience: Count | None = None
    """Evaluations in a row without a new best value of `checkpoint.best`'s metric, or of `valid/loss`."""


class Checkpoint(Section):
    """When the whole state of training is saved."""

    every: EveryOrTime = Interval(1, "epoch")
    """`1 epoch`, `200 steps` or `10 minutes` of training; the end of a run is always saved."""
    keep: Count = 2
    """How many of the newest stay on disk (the best one stays besides)."""
    best: Text | None = None
    """The metric whose best checkpoint is kept, and tested at the end: `valid/accuracy`. Without one the last
    weights are tested."""
    changed_data: Literal["refuse", "accept"] = "refuse"
    """What a run does that goes on and finds other files than those it began with."""


class Elastic(Section):
    """Between how many workers a run may change when nodes are lost or come back."""

    min: Count
    """With fewer, it waits."""
    max: Count
    """It never takes more."""


class Failure(Section):
    """What happens when a worker dies or hangs."""

    retries: NonNegativeInt = 3
    """How often the run starts again from its last good checkpoint."""
    hang_after: Seconds | None = None
    """No step within this time is a hang. By default 20 × the longest step so far, at least 60 s and twice
    the first step, and ten times that while a worker computes; the first one, which builds, loads and
    compiles, may take 600 s."""
    elastic: Elastic | None = None
    """On a cluster: goes on with fewer workers when a node is lost, and with more when there is room,
    from the last checkpoint. `batch_size` stays, and so does what is computed."""
    replacement: Seconds = 600.0
    """On a cluster: how long workers wait for room, such as for a lost node's replacement."""


class Baseline(Section):
    """The same job, with the same seed, but for what is said here: `dlsys prove` trains both, and the
    result must be better."""

    set: Annotated[dict[Text, Any], Field(min_length=1)]
    """What the baseline does otherwise, by dotted keys: `{model.norm: none}`."""
    by: Annotated[dict[Text, NonNegative], Field(min_length=1)]
    """How much better than the baseline's each of these metrics must be at least; with 0, as good:
    `{test/accuracy: 0.25}`."""


class Store(Section):
    """Where figures go."""

    experiment: Text = "default"
    """The MLflow experiment."""
    uri: Text | None = None
    """An MLflow tracking server; by default MLFLOW_TRACKING_URI, or .dlsys/mlflow.db."""


class Tracking(Store):
    """Where figures go, and how often."""

    log_every: Count = 10
    """Steps between two logged means of loss, rate and speed."""


class TrainJob(Section):
    """One training run."""

    # A resumed run must stay the same computation; anything else about it may change.
    FIXED: ClassVar[tuple[str, ...]] = (
        *("kind", "name", "workload", "model", "data", "inputs", "loss", "freeze", "batch_size", "seed"),
    )
    # What trains it: a function of the job, the worker's world and its surroundings.
    ENGINE: ClassVar[str] = "dlsys.train.engine:run_worker"

    kind: Literal["train"]
    """What sort of file this is."""
    name: Name
    """What the run is called; run ids start with it."""
    workload: Text
    """A catalogue name, an architecture that timm, torchvision or transformers build (`timm/convnext_tiny`),
    or your own `package.module:Class` or `module:function`."""
    model: dict[str, Any] = Field(default_factory=dict)
    """The workload's own options: `dlsys zoo show NAME` lists them."""
    data: Source
    """The data source and its options."""
    inputs: tuple[Text, ...] = ()
    """Of a plain model: the fields of a row that it is given; several are given by their names. By default
    the first field that is no label."""
    loss: Objective | None = None
    """Of a plain model, a classifier or a regression: what it learns by, if not by cross-entropy or the
    squared error."""
    metrics: dict[Text, Text | dict[str, Any]] = Field(default_factory=dict)
    """Of the same: further metrics by the names that figures get, each a class of torchmetrics, with options:
    `{f1: {name: F1Score, average: macro}}`."""
    batch_size: Count | Literal["all"]
    """Rows in one update over ALL workers: it never changes meaning with their number."""
    init: TrainInit | None = None
    """Weights to begin with, of another run, of a file, or drawn by layer; else the workload's own."""
    freeze: tuple[Text, ...] = ()
    """Patterns of parameters and running statistics that stay as they are: `[backbone.*]`. They have no
    optimizer state; a norm whose statistics stay computes with them, as when it is measured."""
    optimizer: Optimizer = Field(default_factory=SGD)
    """The update rule."""
    schedule: Schedule = Field(default_factory=Constant)
    """How the learning rate moves."""
    average: Average | None = None
    """The average of the weights over training, which is measured, tested and exported in their place;
    training goes on from the weights themselves."""
    regularize: tuple[Regularizer, ...] = ()
    """Named regularizers."""
    precision: Literal["fp32", "bf16", "fp16", "fp64"] = "fp32"
    """`bf16`, `fp16`: the type of activations; parameters and updates stay in fp32. `fp16` scales the loss,
    and skips steps in which a gradient overflows. `fp64`: everything in double, which is slow, and tells
    rounding from mistakes."""
    compile: Bool = False
    """Compiles the model by torch.compile, under `single` and `ddp`. It takes a while at the first step, and
    on CPUs a C++ compiler; parameters keep their names, and results differ by rounding."""
    activation_checkpointing: Bool = False
    """Computes each block's activations again in backward in place of keeping them: a third more computing.
    Blocks are those on the workload's card; of your own model its children, and the members of its lists.
    Under `single`, `ddp`, `ring` and `fsdp`."""
    gradient: Gradient = Field(default_factory=Gradient)
    """Accumulation and clipping."""
    hooks: tuple[Text | dict[str, Any], ...] = ()
    """Your own classes, called at the moments of training: `my_hooks:Histogram`, or with options,
    `{name: my_hooks:Histogram, every: 100}`."""
    strategy: Strategy | None = None
    """How workers train together; by default `single` for one and `ddp` for several."""
    resources: Resources = Field(default_factory=Resources)
    """Workers and what each of them needs."""
    stop: Stop
    """When the run ends."""
    evaluate: Every = Interval(1, "epoch")
    """How often the validation set is measured; the end of a run always is."""
    checkpoint: Checkpoint = Field(default_factory=Checkpoint)
    """When the state of training is saved, and which saves are kept."""
    failure: Failure = Field(default_factory=Failure)
    """Retries and hangs."""
    tracking: Tracking = Field(default_factory=Tracking)
    """The MLflow experiment and server."""
    notify: Notify | None = None
    """Who is told when the run has ended; by default whom DLSYS_NOTIFY says."""
    seed: Annotated[NonNegativeInt, Field(lt=2**32)] = 0
    """Decides initial weights, data order, dropout and augmentation."""
    expect: dict[str, Bound] = Field(default_factory=dict)
    """What the result must meet; a run that falls short ends with exit code 1."""
    baseline: Baseline | None = None
    """What the result must beat. A run by itself does not train it."""

    @property
    def card(self) -> Card | None:
        """The card of a catalogue workload; None for the user's own."""
        return WORKLOADS.load(self.workload) if self.workload in WORKLOADS else None

    @property
    def learns(self) -> tuple[str, ...]:
        """What is measured while it trains, as `train/…`."""
        return ("loss", *(self.card.learns if self.card else ()))

    @property
    def learner(self) -> str:
        """Whose metrics are measured, for messages."""
        return self.workload

    @property
    def subject(self) -> dict[str, str]:
        """What the job is about, by what it is."""
        version = {"workload_version": str(self.card.version)} if self.card else {}
        return {"workload": self.workload, **version}

    @property
    def code(self) -> Mapping[Path, str]:
        """What may name the user's own code, by its path in the file."""
        code: dict[Path, str] = {("workload",): self.workload}
        if isinstance(self.data, OwnSource):
            code["data", "source"] = self.data.place
        if isinstance(self.loss, OwnLoss):
            code["loss", "name"] = self.loss.name
        code |= {("hooks", index): place for index, (place, _) in enumerate(self.own_hooks)}
        for place, regularizer in enumerate(self.regularize):
            for row, transform in enumerate(getattr(regularizer, "transforms", ())):
                code["regularize", place, "transforms", row, "name"] = transform.name
        return code

    @property
    def own_hooks(self) -> list[tuple[str, dict[str, Any]]]:
        """Each hook's `module:Class`, and its options."""
        told = [{"name": hook} if isinstance(hook, str) else hook for hook in self.hooks]
        return [(str(hook.get("name", "")), {k: v for k, v in hook.items() if k != "name"}) for hook in told]

    @property
    def options(self) -> tuple[dict[str, Any], ...]:
        """Where the user's files may be named, besides the code."""
        return self.data.model_dump(), self.model

    @property
    def paced(self) -> Mapping[str, str]:
        """The optimizer's fields that the schedule sets itself, each with the schedule's that decides it."""
        return self.schedule.SETS

    @property
    def keeps_momentum(self) -> bool:
        """Whether an update depends on those before, through the optimizer's `momentum`."""
        own = getattr(self.optimizer, "momentum", None)
        return bool(own) or (own is not None and "momentum" in self.paced)

    def modes(self) -> Mapping[str, str] | None:
        """The metrics of a split, each with `max` or `min` where one of them is the best.

        None where only the user's own code knows.
        """
        card = self.card
        if card is None or self.metrics:
            return None
        known = dict(card.metrics)
        for field, metrics in card.task.of_fields.items():
            # Only a call tells what fields rows of one's own have.
            if isinstance(self.data, OwnSource) or field in self.data.gives.fields:
                known |= metrics
        return {"loss": "min", **{name: m.best for name, m in known.items()}}

    def watched(self) -> Iterator[tuple[str, str]]:
        """The metrics that something in the job depends on, each behind the field that names it."""
        yield from ((f"expect.{name}", name) for name in self.expect)
        yield from ((f"stop.target.{name}", name) for name in self.stop.target)
        yield from ((f"baseline.by.{name}", name) for name in (self.baseline.by if self.baseline else ()))
        if self.checkpoint.best:
            yield "checkpoint.best", self.checkpoint.best
        if isinstance(self.schedule, Performance):
            yield "schedule.metric", self.schedule.metric

    def shows(self, metric: str) -> bool:
        """Whether a person sees this metric while the run goes on."""
        return metric.startswith(("train/loss", "valid/"))

    def came(self, epochs: float) -> str:
        """How far it is, in words."""
        return f"epoch {epochs:.1f}"

    @property
    def servers(self) -> PS | None:
        """The parameter servers that its workers talk to; None without."""
        return self.strategy if isinstance(self.strategy, PS) else None

    @property
    def needs_ray(self) -> bool:
        """Whether even one worker needs it."""
        return self.servers is not None

    @property
    def alike(self) -> bool:
        """Whether all workers have equal work: the stages of a pipeline are unequal by themselves."""
        return not isinstance(self.strategy, Pipeline)

    @property
    def described(self) -> str:
        """What takes memory, for messages."""
        return f"model {self.workload}, batch_size {self.batch_size}"
