"""Runs the engine without Ray or files: one process, or several joined by gloo."""

from __future__ import annotations

import gc
import math
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from parameter_servers import serving

from dlsys.spec import yaml
from dlsys.spec.load import apply_overrides, check
from dlsys.spec.train.job import TrainJob
from dlsys.train import stop
from dlsys.train.checkpoint import CheckpointStore
from dlsys.train.engine import Surroundings, run_worker
from dlsys.train.loop import Result
from dlsys.train.ps.wire import Servers
from dlsys.train.world import World

_DIED = "the process died"
AGREE_SECONDS = stop._AGREE_SECONDS
QUICK = """
kind: train
name: test
workload: softmax-regression
data: {source: digits}
batch_size: 48
optimizer: {name: sgd, lr: 0.1}
stop: {steps: 12}
tracking: {log_every: 1}
"""


def job(text: str = QUICK, *overrides: str) -> TrainJob:
    document = yaml.read(text, "test.yaml")
    apply_overrides(document, overrides)
    return check(document)


@dataclass
class Memory:
    """A recorder that keeps everything."""

    points: dict[str, dict[int, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def metrics(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.points.setdefault(name, {})[step] = value

    def note(self, text: str) -> None:
        self.notes.append(text)


@dataclass
class Trained:
    """What a run of the engine left."""

    result: Result
    points: dict[str, dict[int, float]]
    notes: list[str]
    weights: dict[str, torch.Tensor]

    @property
    def losses(self) -> dict[int, float]:
        """Every step's training losses, of all phases, added up."""
        names = [name for name in self.points if name.startswith("train/loss")]
        return {
            step: sum(self.points[name].get(step, 0.0) for name in names) for step in self.points[names[0]]
        }


def train(
    job: TrainJob,
    folder: Path,
    *,
    world: World = World(),  # noqa: B008 - immutable
    stop_after: int | None = None,
    servers: Servers | None = None,
) -> Trained:
    """Trains as one worker, with checkpoints in `folder`; asks for the end after some steps."""
    # Asked to stop, workers agree about it at every step. These processes serve many tests.
    stop._AGREE_SECONDS = AGREE_SECONDS if stop_after is None else 0.0
    recorder = Memory()
    store = CheckpointStore(folder / "checkpoints", keep=job.checkpoint.keep, note=recorder.note)
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    seen = 0

    def beat(step: int) -> None:
        nonlocal seen
        seen = step

    around = Surroundings(
        folder=folder,
        recorder=recorder,
        store=store,
        artifacts=folder / "artifacts",
        stop_requested=lambda: stop_after is not None and seen >= stop_after,
        beat=beat,
        servers=servers,
    )
    result = run_worker(job, world, around)
    weights = {}
    if world.is_main and (saved := store.latest()):
        weights = saved.model
    return Trained(result, recorder.points, recorder.notes, weights)


_REFERENCES: dict[str, Trained] = {}


def reference(job: TrainJob) -> Trained:
    """What one worker makes of a job: the truth for every strategy, computed once."""
    key = job.model_dump_json()
    if key not in _REFERENCES:
        with tempfile.TemporaryDirectory() as folder:
            _REFERENCES[key] = train(job, Path(folder))
    return _REFERENCES[key]


# What the workers' parent, which has nothing else to do, imports before it forks them.
_IMPORTED = [
    "deepspeed",
    "networkx",
    "setuptools",
    "sklearn.datasets",
    "torch._dynamo",
    "torch.distributed.fsdp",
    "torch.distributed.pipelining",
    "torch.distributed.tensor.parallel",
    "torch.nn.parallel",
    "dlsys.train.engine",
    "dlsys.train.ps.server",
]
# gloo leaves threads behind with each process group, which look for work a hundred times a second: after some
# hundred calls they take a core from the tests that follow.
_RENEWED_AFTER = 25


class _Pool:
    """Processes that stay, because importing torch takes longer than most tests."""

    def __init__(self) -> None:
        # Forked from a process that has imported torch and has one thread, not from this one.
        self._context = mp.get_context("forkserver")
        self._context.set_forkserver_preload(_IMPORTED)
        self._members: list[tuple[Any, Any]] = []
        self._calls = 0
        # Where they meet, by call. A file store that is given up writes to its file once more, and where
        # its folder is gone, tries that for five minutes.
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def call(
        self, size: int, function: Callable[..., Any], arguments: tuple[Any, ...], mortal: bool
    ) -> list[Any]:
        self._calls += 1
        if self._calls % _RENEWED_AFTER == 0:
            self.close()
        while len(self._members) < size:
            ours, theirs = self._context.Pipe()
            member = self._context.Process(target=_member, args=(theirs,), daemon=True)
            member.start()
            theirs.close()
            self._members.append((member, ours))
        if self._folder is None:  # made where it is used: the members import this file too
            self._folder = tempfile.TemporaryDirectory(prefix="dlsys-meet-")
        meet = f"{self._folder.name}/{self._calls}"
        for rank, (_, pipe) in enumerate(self._members[:size]):
            # As bytes: torch would share memory between the processes.
            pipe.send_bytes(pickle.dumps((rank, size, meet, function, arguments)))
        try:
            found = self._gather(size, mortal)
        except BaseException:
            self.close()  # who still works at it would answer the next call
            raise
        if any(text == _DIED for _, text in found):
            self.close()  # the next call gets new ones
        failed = [text for _, text in found if text and not (mortal and text == _DIED)]
        assert not failed, "\n".join(failed)
        return [value for value, _ in found]

    def _gather(self, size: int, mortal: bool) -> list[tuple[Any, str | None]]:
        """Everybody's answer; when one has failed, the others may wait for it for ever."""
        waiting = {pipe: rank for rank, (_, pipe) in enumerate(self._members[:size])}
        found: dict[int, tuple[Any, str | None]] = {}
        deadline = math.inf
        while waiting:
            for pipe in connection.wait(list(waiting), timeout=1.0):
                rank = waiting.pop(pipe)
                try:
                    found[rank] = pickle.loads(pipe.recv_bytes())
                except (EOFError, OSError):
                    found[rank] = (None, _DIED)
                if found[rank][1] and not mortal:
                    deadline = min(deadline, time.monotonic() + 20)
            if time.monotonic() > deadline:
                failed = "\n".join(text for _, text in found.values() if text)
                raise AssertionError(f"ranks {list(waiting.values())} hang; the others:\n{failed}")
        return [found[rank] for rank in range(size)]

    def close(self) -> None:
        for member, pipe in self._members:
            pipe.close()
            member.kill()  # they hold nothing worth a tidy end
            member.join()
        self._members.clear()


def _member(pipe: Any) -> None:
    torch.set_num_threads(1)
    mp.current_process().daemon = False  # who has `data.workers` starts processes too
    gc.freeze()  # what was imported: every run collects its own garbage
    while True:
        try:
            rank, size, meet, function, arguments = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        try:
            dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=size)
            # One that is done at once must not leave while another still joins.
            dist.barrier()
            value = function(World(rank=rank, local_rank=rank, size=size, backend="gloo"), *arguments)
            pipe.send_bytes(pickle.dumps((value, None)))
        except BaseException:
            pipe.send_bytes(pickle.dumps((None, traceback.format_exc())))
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()


POOL = _Pool()


def in_workers(size: int, function: Callable[..., Any], *arguments: Any, mortal: bool = False) -> list[Any]:
    """Calls `function(world, *arguments)` in `size` processes; returns their values by rank.

    The function must be importable; values travel by pickle.

    Args:
        mortal: whether processes may be killed meanwhile; such a one's value is None.
    """
    return POOL.call(size, function, arguments, mortal)


def train_worker(
    world: World, job: TrainJob, folder: str, stop_after: int | None = None, servers: Servers | None = None
) -> Trained:
    """`train` for `in_workers`."""
    return train(job, Path(folder), world=world, stop_after=stop_after, servers=servers)


def with_workers(job: TrainJob, folder: Path, *, stop_after: int | None = None) -> Trained:
    """`train` with as many workers as the job says; what rank 0 returns."""
    size = job.resources.workers
    if size == 1:
        return train(job, folder, stop_after=stop_after)
    with serving(job) as servers:
        found: Trained = in_workers(size, train_worker, job, str(folder), stop_after, servers)[0]
    return found


def assert_same_figures(truth: Trained, other: Trained) -> None:
    """What was measured of the validation rows and of the test."""
    measured = {n: v for n, v in truth.result.metrics.items() if n.startswith(("valid/", "test/"))}
    assert measured
    for name, value in measured.items():
        # What counts rows, or pairs of them, jumps where rounding turns one.
        least = 1e-6 if name.endswith("loss") else 1e-3
        assert other.result.metrics[name] == pytest.approx(value, rel=1e-4, abs=least), name


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    """Bit for bit."""
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name
