"""The launchers that start workers on Ray: as plain actors, or as Ray Train's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

from dlsys.errors import DlsysError, RunError, UsageError, WorkerDiedError
from dlsys.jobs.launch.assignment import Assignment, Outcome, reported
from dlsys.jobs.launch.launcher import Driver, Free, Need
from dlsys.jobs.launch.ray_session import RaySession, first_line
from dlsys.jobs.launch.script import End, Given, Ranks, ScriptLauncher
from dlsys.jobs.mirror.node import Mirror
from dlsys.paths import read_json
from dlsys.spec.script.job import ScriptJob


class _RayLauncher(ABC):
    """Keeps one Ray for all attempts of a run."""

    def __init__(self, session: RaySession) -> None:
        self._session = session

    def start(self, need: Need) -> None:
        self._session.start(need)

    @property
    def free(self) -> Free | None:
        return self._session.free if self._session.address is not None else None

    def stop(self) -> None:
        self._session.stop()

    def run(self, assignment: Assignment, driver: Driver) -> Outcome:
        from ray.exceptions import RayError

        mirror = Mirror(assignment.owner_paths, assignment.store)
        if self._session.queued:  # Ray has unpacked the working folder on each node
            assignment = replace(assignment, directory="")
        try:
            with equipped(assignment, driver.watch) as ready:
                self._fit(ready, driver.watch)
        except RayError as error:
            with suppress(RunError):
                mirror.exchange()
            raise reported(assignment) or _translate(error) from error
        except WorkerDiedError as error:
            with suppress(RunError):
                mirror.exchange()
            raise reported(assignment) or error from error
        away: RunError | None = None
        try:
            mirror.exchange()
        except RunError as error:  # what rank 0 left may be here all the same
            away = error
        found = read_json(assignment.attempt_folder(assignment.paths.failures) / "result.json")
        if found is None:
            raise away or WorkerDiedError("the workers ended without a result")
        return Outcome(**found)

    @abstractmethod
    def _fit(self, assignment: Assignment, watch: Callable[[], None]) -> None:
        """Runs the workers to their end; rank 0 leaves the result in a file."""


class RayActors(_RayLauncher):
    def _fit(self, assignment: Assignment, watch: Callable[[], None]) -> None:
        from dlsys.jobs.launch.ray_actors import fit

        fit(assignment, watch)


class RayTrain(_RayLauncher):
    def _fit(self, assignment: Assignment, watch: Callable[[], None]) -> None:
        if assignment.store and assignment.owner_paths.secrets.exists():
            raise UsageError(
                "resources.launcher: train hands no secrets to nodes that share no folder",
                hint="Leave it out.",
            )
        from dlsys.jobs.launch.torch_trainer import fit

        fit(assignment, watch)


class RayScript(ScriptLauncher):
    """A script's command in an actor for each worker.

    Args:
        mirror: the driver's own.
    """

    lost = "its worker or its node died"

    def __init__(self, session: RaySession, mirror: Mirror) -> None:
        self._session = session
        self._mirror = mirror

    def start(self, need: Need) -> None:
        self._session.start(need)

    def stop(self) -> None:
        self._session.stop()

    @contextmanager
    def _started(
        self, assignment: Assignment, job: ScriptJob, wait: Callable[[], None], given: Given
    ) -> Iterator[Ranks]:
        from ray.exceptions import RayError

        from dlsys.jobs.launch.ray_ranks import started

        try:
            with started(assignment, job, wait, given, self._mirror) as ranks:
                yield ranks
        except RayError as error:
            raise _translate(error) from error

    def _failure(self, end: End, ranks: Ranks, rank: int, log: Path, before: int) -> DlsysError:
        """As anywhere; the job ends with the rank's exit code, as a shell would have it of a signal."""
        error = super()._failure(end, ranks, rank, log, before)
        if end.code is not None:
            error.exit_code = end.code if end.code > 0 else 128 - end.code
        return error


def equipped(assignment: Assignment, watch: Callable[[], None]) -> AbstractContextManager[Assignment]:
    """The assignment with the parameter servers that it needs, for as long as the context lasts."""
    if assignment.trained.servers is None:
        return nullcontext(assignment)  # and the driver need not import what servers need
    from dlsys.jobs.launch.ray_servers import parameter_servers

    return parameter_servers(assignment, watch)


def _translate(error: BaseException) -> DlsysError:
    from ray.exceptions import RayActorError

    if isinstance(error, RayActorError):
        return WorkerDiedError("a worker died without a word: killed, or out of memory")
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, DlsysError):
        return cause
    return RunError(f"a worker failed: {type(cause).__name__}: {first_line(cause)}")
