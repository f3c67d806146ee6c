"""One local worker: this process. No Ray, no second interpreter, no waiting."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch

from dlsys.data import Splits
from dlsys.data import load as load_data
from dlsys.jobs.launch.assignment import Assignment, Outcome
from dlsys.jobs.launch.worker import work
from dlsys.train.world import World


def launch(
    assignment: Assignment,
    *,
    stop_requested: Callable[[], bool],
    on_hang: Callable[[str], None],
    load: Callable[[Any, Path], Splits] = load_data,
) -> Outcome:
    """Trains in this process. The arguments are those of `work`."""
    gpus = float(assignment.job["resources"]["gpus"])
    device = torch.device("cuda", 0) if gpus and torch.cuda.is_available() else torch.device("cpu")
    with _stdout_kept(assignment.paths.log(0)):
        result = work(
            assignment, World(device=device), stop_requested=stop_requested, on_hang=on_hang, load=load
        )
    position = result.position
    return Outcome(result.reason, position.step, position.seconds, result.metrics, position.epoch)


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
    """Whatever the user's code prints is shown, and kept as this worker's log too."""
    terminal = sys.stdout
    with open(path, "a", buffering=1, encoding="utf-8") as log:
        sys.stdout = _Tee(terminal, log)
        try:
            yield
        finally:
            sys.stdout = terminal
