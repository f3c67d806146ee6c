"""A script's workers on this machine: plain processes. No Ray."""

from __future__ import annotations

import os
import selectors
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dlsys.jobs.launch.assignment import Assignment
from dlsys.jobs.launch.launcher import Need
from dlsys.jobs.launch.script import End, Given, ScriptLauncher, Watched, program, reserved_port
from dlsys.jobs.launch.torchrun import told_by_torchrun
from dlsys.spec.script.job import ScriptJob


class LocalScript(ScriptLauncher):
    def start(self, need: Need) -> None:
        """There is nothing to start."""

    def stop(self) -> None:
        """There is nothing to end."""

    @contextmanager
    def _started(
        self, assignment: Assignment, job: ScriptJob, wait: Callable[[], None], given: Given
    ) -> Iterator[_Processes]:
        paths, workers = assignment.paths, job.resources.workers
        env = {**os.environ, **job.env}
        command = [program(job.command[0], assignment.folder, env), *job.command[1:]]
        env |= given()
        env |= {"DLSYS_RUN_ID": paths.id, "DLSYS_CHECKPOINTS": str(paths.checkpoints)}
        logs = [paths.log(rank) for rank in range(workers)]
        with reserved_port("127.0.0.1") as held, selectors.DefaultSelector() as waiting:
            places = [
                {
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "WORLD_SIZE": str(workers),
                    "LOCAL_WORLD_SIZE": str(workers),
                    "NODE_RANK": "0",
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(held.getsockname()[1]),
                }
                for rank in range(workers)
            ]
            started: list[Watched] = []
            try:
                for place, log in zip(places, logs, strict=True):
                    told = told_by_torchrun(
                        place,
                        env,
                        run=paths.id,
                        cpus=job.resources.cpus,
                        restarts=assignment.attempt - 1,
                        most=job.failure.retries,
                    )
                    started.append(Watched(command, log, {**env, **told}, assignment.folder))
                for rank, each in enumerate(started):
                    waiting.register(each.guarded, selectors.EVENT_READ, rank)
                yield _Processes(started, waiting, logs)
            finally:
                for each in started:
                    each.guarded.kill()
                for each in started:
                    each.end()


class _Processes:
    """The ranks, as their guards tell of them.

    Args:
        waiting: has those that have not ended.
    """

    def __init__(self, started: list[Watched], waiting: selectors.BaseSelector, logs: list[Path]) -> None:
        self._started, self._waiting, self._logs = started, waiting, logs

    def ended(self, within: float) -> dict[int, End]:
        found = {key.data: self._started[key.data].end() for key, _ in self._waiting.select(within)}
        for rank in found:
            self._waiting.unregister(self._started[rank].guarded)
        return found

    def end(self, grace: float, number: int) -> None:
        for key in self._waiting.get_map().values():
            self._started[key.data].guarded.end(grace, number)

    def who(self, rank: int) -> str:
        return f"rank {rank}" if len(self._logs) > 1 else "the command"

    def where(self, rank: int) -> str:
        return str(self._logs[rank])

    def gather(self) -> None:
        """All is here."""
