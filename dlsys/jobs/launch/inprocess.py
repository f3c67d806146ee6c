"""One local worker: this process. No Ray, no second interpreter, no waiting."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import torch

from dlsys.data import Splits
from dlsys.data import load as load_data
from dlsys.jobs.launch.assignment import Assignment, Outcome
from dlsys.jobs.launch.launcher import Driver, Free, Need
from dlsys.jobs.launch.worker import work
from dlsys.jobs.mirror.node import Mirror
from dlsys.spec.data import Source
from dlsys.train.seeding import random_state, set_random_state
from dlsys.train.world import World


class InProcess:
    """Trains in the driver's own process.

    Args:
        mirror: brings the newest checkpoint here; None where that is done already.
        load: gives the rows of a job's `data:`.
    """

    # No node comes or goes.
    free: Free | None = None

    def __init__(
        self, mirror: Mirror | None = None, load: Callable[[Source, Path], Splits] = load_data
    ) -> None:
        self._mirror, self._load = mirror, load

    def start(self, need: Need) -> None:
        """There is nothing to start."""

    def run(self, assignment: Assignment, driver: Driver) -> Outcome:
        if self._mirror is not None:
            self._mirror.take(assignment.paths)
        gpus = assignment.job.resources.gpus
        device = torch.device("cuda", 0) if gpus and torch.cuda.is_available() else torch.device("cpu")
        with _stdout_kept(assignment.paths.log(0)), _settings_kept():
            result = work(
                assignment,
                World(device=device),
                stop_requested=driver.stop_requested,
                on_hang=driver.on_hang,
                load=self._load,
            )
        position = result.position
        return Outcome(result.reason, position.step, position.seconds, result.metrics, position.epoch)

    def stop(self) -> None:
        """There is nothing to end."""


@contextmanager
def _settings_kept() -> Iterator[None]:
    """Training sets them for the whole process, which goes on with its own when this is over."""
    interval, threads, state = sys.getswitchinterval(), torch.get_num_threads(), random_state()
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        torch.set_num_threads(threads)
        set_random_state(state)


class _Tee:
    def __init__(self, terminal: IO[str], log: IO[str]) -> None:
        self._terminal, self._log = terminal, log

    def write(self, text: str) -> int:
        self._log.write(text)
        return self._terminal.write(text)

    def flush(self) -> None:
        self._terminal.flush()
        self._log.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._terminal, name)


@contextmanager
def _stdout_kept(path: Path) -> Iterator[None]:
    """What the user's code prints is shown on standard error, and kept as this worker's log too: standard
    output is what programs read."""
    terminal = sys.stdout
    with open(path, "a", buffering=1, encoding="utf-8") as log:
        sys.stdout = _Tee(sys.stderr, log)
        try:
            yield
        finally:
            sys.stdout = terminal
