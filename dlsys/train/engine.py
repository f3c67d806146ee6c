"""Builds the parts of a worker from a checked job, and runs the loop."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from dlsys import data as sources
from dlsys.data.augment import augment, own_transforms
from dlsys.data.dataset import Batch, Dataset
from dlsys.data.loader import Loader
from dlsys.data.makers import made_by
from dlsys.data.mixing import mixed
from dlsys.data.order import Order
from dlsys.errors import UsageError
from dlsys.registry import STRATEGIES, did_you_mean
from dlsys.spec import yaml
from dlsys.spec.data import Source
from dlsys.spec.fingerprint import fingerprint, refuse_changes
from dlsys.spec.names import wrong_name
from dlsys.spec.train import solved_rules
from dlsys.spec.train.job import TrainJob
from dlsys.spec.train.regularizer import DataAugmentation
from dlsys.spec.train.rules import total_steps
from dlsys.train.alike import require_same_rows
from dlsys.train.average import averaged
from dlsys.train.best import to_test
from dlsys.train.checkpoint import CheckpointStore, Position, Saved
from dlsys.train.checkpoint.snapshot import distribute
from dlsys.train.hooks import Hooks, Run
from dlsys.train.initial import begin
from dlsys.train.loop import Loop, Recorder, Result
from dlsys.train.pictures import shows, varied_rows, write, write_confusion, write_samples
from dlsys.train.precision import Precision
from dlsys.train.ps.wire import Servers
from dlsys.train.regularize import Regularizers
from dlsys.train.schedule import Schedule
from dlsys.train.strategies import Parts, Strategy
from dlsys.train.world import World
from dlsys.zoo.confusion import table_of
from dlsys.zoo.imported import PlainModel
from dlsys.zoo.load import workload_of
from dlsys.zoo.solved import Solved
from dlsys.zoo.tasks.classify import Classify
from dlsys.zoo.workload import Workload

# The file among a run's artifacts that says what was learnt from its data.
LEARNT = "data.json"


@dataclass(frozen=True)
class Surroundings:
    """What a worker is given besides its job and its world.

    Attributes:
        folder: where the job file's relative paths start.
        recorder: where its figures go.
        store: the run's checkpoints.
        artifacts: where samples to look at are written.
        stop_requested: whether the run is asked to end early.
        beat: the watchdog's, called at each step.
        servers: where the run's parameter servers are.
        pause: the epoch at whose end training pauses; None trains to the job's end.
        tested: whether the test set is measured at the end.
        load: gives the rows; `dlsys.data.load`, or one that remembers.
    """

    folder: Path
    recorder: Recorder
    store: CheckpointStore
    artifacts: Path
    stop_requested: Callable[[], bool] = lambda: False
    beat: Callable[[int], None] = lambda step: None
    servers: Servers | None = None
    pause: int | None = None
    tested: bool = True
    load: Callable[[Source, Path], sources.Splits] = sources.load


def run_worker(job: TrainJob, world: World, around: Surroundings) -> Result:
    """Trains as one worker of `world`, from the newest good checkpoint if there is one.

    Raises:
        RunError: the run failed; the subclass says how.
    """
    torch.set_num_threads(max(1, int(job.resources.cpus)))
    around.beat(0)
    splits = around.load(job.data, around.folder)
    if world.is_main:
        for note in splits.notes:
            around.recorder.note(note)
    workload = workload_of(job, splits.shape, splits.learnt)
    _check_solved(job, workload)
    modes = workload.modes
    _check_metrics(job, modes)
    regularizers = Regularizers(job.regularize)
    assert job.strategy is not None, "a resolved job names its strategy"
    strategy: Strategy = STRATEGIES.load(job.strategy.name)()
    try:
        begin_here = partial(_begin, job, world, around)
        batch_size = _batch_size(job, splits)
        parts = Parts(
            job,
            workload,
            regularizers,
            world,
            around.servers,
            around.recorder.note,
            begin_here,
            steps_per_epoch=-(-len(splits.train) // batch_size),
        )
        loaders = _loaders(parts, splits, batch_size)
        # Before there is a model: the processes would share its memory.
        with made_by(loaders, workers=job.data.workers, prefetch=job.data.prefetch):
            return _train(parts, strategy, splits, loaders, modes, around)
    finally:
        strategy.close()


def _begin(job: TrainJob, world: World, around: Surroundings, model: nn.Module) -> None:
    told = begin(model, job, around.folder, fresh=not around.store.any)
    if told and world.is_main:
        around.recorder.note(told)


def _train(
    parts: Parts,
    strategy: Strategy,
    splits: sources.Splits,
    loaders: Mapping[str, Loader],
    modes: dict[str, Literal["max", "min"]],
    around: Surroundings,
) -> Result:
    job, workload = parts.job, parts.workload
    strategy.setup(parts)
    world = strategy.gathering(parts.world)
    require_same_rows(splits, world)

    batch_size = _batch_size(job, splits)
    _check_batch(batch_size, len(splits.train), strategy.data_place[1] * job.gradient.accumulate)
    placed = {split: loader.placed(*strategy.data_place) for split, loader in loaders.items()}
    train = placed["train"]
    steps_per_epoch = train.order.steps_per_epoch
    total = total_steps(job, steps_per_epoch)
    schedule = Schedule(
        job.schedule,
        lr=job.optimizer.lr,
        steps_per_epoch=steps_per_epoch,
        total_steps=int(total) if total != float("inf") else None,
        mode=modes.get(getattr(job.schedule, "metric", "").partition("/")[2], "min"),
    )
    hooks = Hooks.of(job, around.recorder.note if world.is_main else lambda text: None)
    loop = Loop(
        job=job,
        world=world,
        workload=workload,
        strategy=strategy,
        schedule=schedule,
        train=train,
        valid=placed["valid"],
        test=placed.get("test") if around.tested else None,
        store=around.store,
        recorder=around.recorder,
        modes=modes,
        stop_requested=around.stop_requested,
        beat=around.beat,
        pause=around.pause,
        data=fingerprint(job, around.folder),
        learnt=splits.learnt,
        hooks=hooks,
        position=Position(),
    )
    if world.is_main:
        around.store.tidy()
        _write_learnt(splits, around.artifacts)
    if saved := _agreed(around.store.latest, world):
        _resume(loop, saved, job, batch_size)
    run = Run(
        job,
        world,
        strategy,
        lambda: loop.position,
        lambda: loop.metrics,
        around.recorder.metrics,
        around.artifacts,
    )
    hooks.begin(run, saved.loop.get("hooks", {}) if saved else {})
    loop.take_best = partial(_take_best, loop, job, batch_size)
    around.beat(loop.position.step)
    with _settled_memory():
        result = loop.run()
    if result.reason not in ("paused", "interrupted"):
        _write_pictures(loop, around.artifacts)
    return result


def _write_pictures(loop: Loop, folder: Path) -> None:
    """What a run that has ended leaves to look at; called on every worker."""
    workload, is_main = loop.workload, loop.world.is_main
    split = "test" if "test" in loop.sums else "valid"
    table = table_of(loop.sums.get(split, {}))
    if table is not None and is_main:
        of = "rows" if "target" in loop.learnt else "pixels"
        told = loop.learnt.get("target" if of == "rows" else of, {})
        write_confusion(
            table.cpu(), told.get("classes") or [*map(str, range(len(table)))], split, folder, of=of
        )
    if split in loop.sums and is_main:
        write(workload.report(loop.sums[split], loop.learnt), folder)
    if is_main and any(isinstance(told, DataAugmentation) for told in loop.job.regularize):
        write({"augmented": varied_rows(loop.train)}, folder)
    if shows(workload):
        state = loop.strategy.state_out()
        if is_main:
            unlearnt = loop.valid if loop.test is None else loop.test
            weights = averaged(state.model, state.optimizers)
            write_samples(workload, weights, loop.job.seed, unlearnt, folder)


@contextmanager
def _settled_memory() -> Iterator[None]:
    """What setting up left behind lives as long as the run: the collector need not walk it again.

    A process that trains one run after another has done that once for what all of them share, which is
    nearly everything; doing it for each takes longer than a short run.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _write_learnt(splits: sources.Splits, folder: Path) -> None:
    """What predicting for other rows needs besides weights, for people and for `dlsys.data`."""
    if splits.learnt:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LEARNT).write_text(json.dumps(splits.learnt, indent=1, ensure_ascii=False))


def _check_metrics(job: TrainJob, modes: dict[str, Literal["max", "min"]]) -> None:
    """Metrics that a user's own workload does not have; a catalogue workload's are checked with the file."""
    for name in modes:
        if wrong := wrong_name(f"valid/{name}"):
            raise UsageError(f"{job.workload}: the metric {name!r} {wrong}")
    for path, name in job.watched():
        split, _, metric = name.partition("/")
        if split != "train" and metric not in modes:
            near = did_you_mean(metric, modes)
            raise UsageError(
                f"{path}: {job.workload} measures no {metric!r} ({name}).{near} Known: {', '.join(modes)}"
            )


def _check_solved(job: TrainJob, workload: Workload) -> None:
    """What a user's own workload that learns without gradients leaves no use for; of the catalogue's, it is
    checked with the file."""
    if isinstance(workload, Solved) and job.card is None:
        for path, wrong in solved_rules.leaves_out(job):
            raise UsageError(f"{yaml.dotted(path)}: {wrong}")


def _batch_size(job: TrainJob, splits: sources.Splits) -> int:
    return len(splits.train) if job.batch_size == "all" else job.batch_size


def _check_batch(batch_size: int, rows: int, parts: int) -> None:
    if batch_size > rows:
        raise UsageError(
            f"batch_size: {batch_size} rows, but the training set has {rows}: use at most {rows}"
        )
    if batch_size < parts:
        raise UsageError(f"batch_size: {batch_size} rows cannot be shared by {parts} micro-batches")


def _loaders(parts: Parts, splits: sources.Splits, batch_size: int) -> dict[str, Loader]:
    """Each split's batches, by its name; which share of them is this worker's, the strategy says later."""
    job, workload = parts.job, parts.workload
    varied: Callable[[Batch], Batch] | None = None
    if augmentation := parts.regularizers.augmentation:
        varied = partial(augment, options=augmentation, transforms=own_transforms(augmentation))
    mix: Callable[[Batch, Batch], Batch] | None = None
    if augmentation and (augmentation.mixup or augmentation.cutmix):
        entropy = isinstance(workload, Classify) and type(workload).learns_by is Classify.learns_by
        if not (entropy or isinstance(workload, PlainModel)):
            raise UsageError(
                f"regularize: mixup and cutmix share out labels of classes, and {job.workload} has a loss of "
                "its own that knows nothing of shares: leave them out"
            )
        mix = partial(mixed, options=augmentation, classes=splits.shape.classes)

    def loader(
        dataset: Dataset, kind: Literal["shuffled", "sequential", "streams"], training: bool
    ) -> Loader:
        rows = min(batch_size, len(dataset))
        return Loader(
            dataset,
            Order(len(dataset), rows, kind, job.seed),
            micro=job.gradient.accumulate if training else 1,
            device=parts.world.device,
            floats=parts.precision.floats,
            prefetch=job.data.prefetch,
            vary=varied if training else None,
            mix=mix if training else None,
            scale=splits.scaling,
        )

    still: Literal["sequential", "streams"] = "streams" if workload.order == "streams" else "sequential"
    loaders = {
        "train": loader(splits.train, workload.order, True),
        "valid": loader(splits.valid, still, False),
    }
    if splits.test is not None:
        loaders["test"] = loader(splits.test, still, False)
    return loaders


def _agreed(choose: Callable[[], Saved | None], world: World) -> Saved | None:
    """A checkpoint, chosen by rank 0 and handed to all: they never differ about it."""
    if world.size == 1:
        return choose()
    found: list[object] = [None, None]
    if world.is_main:
        try:
            found[0] = choose()
        except Exception as error:
            found[1] = error
    torch.distributed.broadcast_object_list(found)
    if isinstance(found[1], Exception):
        raise found[1]
    return found[0] if isinstance(found[0], Saved) else None


def _resume(loop: Loop, saved: Saved, job: TrainJob, batch_size: int) -> None:
    if job.checkpoint.changed_data == "refuse":
        refuse_changes(saved.loop.get("data", {}), loop.data, f"the checkpoint of step {saved.position.step}")
    own = _take(loop, saved, job, batch_size)
    loop.meter.load_state_dict(own.get("meter", {}))
    loop.position = saved.position
    loop.metrics = dict(saved.loop["metrics"])
    told = [
        loop.best.load_state_dict(saved.loop["best"]),
        loop.schedule.load_state_dict(saved.loop["schedule"]),
        loop.patience.load_state_dict(saved.loop["patience"]) if "patience" in saved.loop else "",
    ]
    loop.mark_saved()
    if loop.world.is_main:
        loop.recorder.note(f"continues from the checkpoint of step {saved.position.step}")
        for sentence in filter(None, told):
            loop.recorder.note(sentence)


def _take(loop: Loop, saved: Saved, job: TrainJob, batch_size: int) -> dict[str, Any]:
    """Gives the strategy a checkpoint's state; returns this worker's part besides."""
    state, own = distribute(
        saved,
        loop.world,
        loop.strategy.data_place,
        batch_size=batch_size,
        micro=job.gradient.accumulate,
        seed=job.seed,
    )
    state.local = Precision(job.precision, loop.world.device).adopt(state.local)
    loop.strategy.state_in(state)
    return own


def _take_best(loop: Loop, job: TrainJob, batch_size: int) -> None:
    """Gives the strategy what is to be tested."""
    choose = partial(to_test, loop.best, loop.store, loop.position.step, loop.recorder.note)
    if loop.best.metric is not None and (saved := _agreed(choose, loop.world)):
        _take(loop, saved, job, batch_size)
