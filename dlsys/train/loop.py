"""The training loop. It takes built parts, and knows neither the strategy nor the tracker."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import Tensor

from dlsys.data.loader import Loader
from dlsys.errors import NonFiniteError, UsageError
from dlsys.registry import did_you_mean
from dlsys.spec.names import wrong_name
from dlsys.spec.train.job import TrainJob
from dlsys.train.best import Best, Patience
from dlsys.train.checkpoint import CheckpointStore, Position
from dlsys.train.checkpoint.snapshot import collect
from dlsys.train.evaluate import evaluate
from dlsys.train.hooks import Hooks
from dlsys.train.meter import Meter, SystemMeter
from dlsys.train.schedule import Schedule
from dlsys.train.stop import Reason, Stopper
from dlsys.train.strategies import StepResult, Strategy
from dlsys.train.world import World
from dlsys.zoo.workload import Workload


class Recorder(Protocol):
    """Where figures go; it must return at once."""

    def metrics(self, step: int, values: dict[str, float]) -> None: ...

    def note(self, text: str) -> None: ...


@dataclass
class Result:
    """How a run ended.

    Attributes:
        reason: what ended it.
        position: how far it came.
        metrics: the last value of each metric.
    """

    reason: Reason
    position: Position
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass
class Loop:
    """Trains from `position` to the end.

    Attributes:
        modes: the best direction of each metric of a split (`loss`, `accuracy`).
        stop_requested: whether someone asked this worker to end early.
        beat: called with the number of each step begun, and after each long pause.
        pause: the epoch at whose end training pauses; None trains to the end.
        data: digests of the files that are read.
        learnt: what was learnt from the training rows, as `Splits` has it.
        take_best: called before the test, when all is saved.
        hooks: the user's own code at certain moments.
        sums: of each split that was measured, the last ones.
    """

    job: TrainJob
    world: World
    workload: Workload
    strategy: Strategy
    schedule: Schedule
    train: Loader
    valid: Loader
    test: Loader | None
    store: CheckpointStore
    recorder: Recorder
    modes: dict[str, Literal["max", "min"]]
    stop_requested: Callable[[], bool] = lambda: False
    beat: Callable[[int], None] = lambda step: None
    pause: int | None = None
    data: dict[str, str] = field(default_factory=dict)
    learnt: Mapping[str, Any] = field(default_factory=dict)
    position: Position = field(default_factory=Position)
    metrics: dict[str, float] = field(default_factory=dict)
    take_best: Callable[[], None] = lambda: None
    hooks: Hooks = field(default_factory=Hooks)
    sums: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        watched = self.job.checkpoint.best
        self.best = Best(watched, self.modes.get((watched or "").partition("/")[2], "min"))
        patient = watched or "valid/loss"
        mode = self.modes.get(patient.partition("/")[2], "min")
        self.patience = Patience(self.job.stop.patience, Best(patient, mode))
        self._seen = False
        self.meter = Meter()
        self._system = SystemMeter(self.world.rank)
        self._saved_at = self.position.step

    def mark_saved(self) -> None:
        """The present position is on disk: it was just read from there."""
        self._saved_at = self.position.step

    def run(self) -> Result:
        """Trains; returns when `stop` holds or someone asked for the end."""
        first = self.position.step + 1
        self._stopper = Stopper(self.job, self.world, self.stop_requested, first, self.pause)
        self.hooks.call("start")
        reason = self._ended()
        while reason is None:
            reason = self._epoch()
        if self._saved_at != self.position.step:
            self.save()
        if reason not in ("paused", "interrupted") and self.test is not None:
            self.take_best()
            self.evaluate("test", self.test)
        self.store.wait()
        self.hooks.call("end", reason)
        return Result(reason, self.position, self.metrics)

    def _epoch(self) -> Reason | None:
        position, steps = self.position, self.train.order.steps_per_epoch
        if position.step_in_epoch == 0:
            self.strategy.reset_carry()
        begun = time.perf_counter()
        before = position.step - position.step_in_epoch
        start = (position.epoch, position.step_in_epoch, before)
        for number, batch in self.strategy.batches(self.train, *start):
            counted = position.step
            self._count_to(number - 1)
            self.beat(before + number)
            fetched = time.perf_counter()
            hyper = self.schedule.hyper
            result = self.strategy.train_step(batch, before + number, hyper)
            self._count_to(number)
            if not self._seen:
                self._see(result)
            ended = number == steps
            if ended:
                position.epoch, position.step_in_epoch = position.epoch + 1, 0
            done = time.perf_counter()
            self.hooks.call("step")
            self.meter.add(result, batch.rows * (position.step - counted), fetched - begun, done - begun)
            position.seconds += done - begun
            if ended or self.strategy.meets(position.step):
                self._stopper.agree(position, done - begun)
            improved, evaluates = False, self._stopper.due(self.job.evaluate, position, ended)
            reason = self._ended()
            # What is measured is that of the steps before; a run that goes on later makes the whole mean.
            if (
                position.step % self.job.tracking.log_every == 0
                or evaluates
                or reason in ("finished", "target", "time", "patience")
            ):
                self.log(hyper["lr"])
                reason = self._ended()
            # Who interrupts a run waits for its end: no time for more than a checkpoint.
            if reason != "interrupted" and (reason or evaluates):
                improved = self.evaluate("valid", self.valid)
                reason = self._ended()
            if improved or reason or self._stopper.due(self.job.checkpoint.every, position, ended):
                self.save(best=improved)
            if reason or ended:
                return reason
            begun = time.perf_counter()
        raise AssertionError("an epoch without a last step")

    def _see(self, result: StepResult) -> None:
        """Looks at the names of the first step's figures, which only a step can tell.

        Raises:
            UsageError: MLflow does not take one, or the job asks for one that is not there.
        """
        self._seen = True
        measured = [f"train/{name}" for name in (*result.sums, *result.figures, "grad_norm", "lr", "epoch")]
        for name in measured:
            if wrong := wrong_name(name):
                raise UsageError(f"{self.job.workload}: the metric {name.removeprefix('train/')!r} {wrong}")
        for path, name in self.job.watched():
            if name.startswith("train/") and name not in measured:
                near = did_you_mean(name, measured)
                raise UsageError(f"{path}: {name!r} is not measured.{near} Known: {', '.join(measured)}")

    def _count_to(self, number: int) -> None:
        """Counts the epoch's first `number` updates as done, by whichever worker."""
        while self.position.step_in_epoch < number:
            self.schedule.step()
            self.position.step += 1
            self.position.step_in_epoch += 1

    def _ended(self) -> Reason | None:
        reason = self._stopper.reason(self.position, self.metrics)
        return "patience" if reason is None and self.patience.over else reason

    def log(self, lr: float | None) -> None:
        """Logs means since the last log point; called on every worker at the same steps."""
        values = self.meter.take(self.world)
        communication = dict(self.strategy.communication())
        times = self.meter.take_times(communication)
        system = self._system.take(communication, times.get("perf/step_seconds"))
        self.metrics.update(values)
        if self.world.is_main:
            progress = {"train/epoch": self._epochs_done(), "train/lr": float(lr or 0.0)}
            system = {**values, **progress, **times, **system}
        self.recorder.metrics(self.position.step, system)

    def _epochs_done(self) -> float:
        return self.position.epoch + self.position.step_in_epoch / self.train.order.steps_per_epoch

    def evaluate(self, split: str, loader: Loader) -> bool:
        """Measures a split; returns whether `checkpoint.best`'s metric reached a new best.

        Raises:
            NonFiniteError: the split's loss is not finite.
        """
        sums = evaluate(
            self.strategy,
            loader,
            self.world,
            listed=self.workload.listed,
            beat=lambda: self.beat(self.position.step),
        )
        self.sums[split] = sums
        values = {f"{split}/{name}": value for name, value in self.workload.results(sums).items()}
        if not abs(loss := values.get(f"{split}/loss", 0.0)) < float("inf"):
            raise NonFiniteError(f"step {self.position.step}: {split}/loss is {loss}")
        self.metrics.update(values)
        if self.world.is_main:
            self.recorder.metrics(self.position.step, {**values, "train/epoch": self._epochs_done()})
        self.hooks.call("evaluated", split, values)
        if split == "valid":
            self.schedule.observe(self.metrics)
            self.patience.observe(self.metrics)
        return split == "valid" and self.best.improves(self.metrics)

    def save(self, *, best: bool = False) -> None:
        """Saves the whole state; called on every worker."""
        self.beat(self.position.step)
        loop: dict[str, Any] = {
            "schedule": self.schedule.state_dict(),
            "best": self.best.state_dict(),
            "patience": self.patience.state_dict(),
            "data": self.data,
            "learnt": dict(self.learnt),
            "hooks": self.hooks.state_dict(),
            # So that the model can be built again without the data.
            "shape": self.workload.shape.to_json(),
            "metrics": self.metrics,
        }
        own = {"meter": self.meter.state_dict()}
        saved = collect(self.strategy.state_out(), self.position, loop, own, self.world)
        if saved is not None:
            self.store.save(saved, best=best)
        self._saved_at = self.position.step
        self._stopper.saved()
        self.hooks.call("saved", best)
