"""How an attempt's workers are started: in this process, as Ray actors, or as Ray Train's workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from dlsys.jobs.launch.assignment import Assignment, Outcome
from dlsys.spec.rl.job import RLResources
from dlsys.spec.train.job import Processes

Need = Processes | RLResources
Free = Callable[[], Sequence[dict[str, float]]]


@dataclass(frozen=True)
class Driver:
    """What an attempt asks of its driver while it goes on.

    Attributes:
        watch: called several times a second while workers train in other processes; raises to end them.
        stop_requested: whether a worker in the driver's own process should end early; asked in each step.
        on_hang: the last act of a worker in the driver's own process that makes no progress.
        signal: which signal asks for the end; 0 while none has come.
    """

    watch: Callable[[], None] = lambda: None
    stop_requested: Callable[[], bool] = lambda: False
    on_hang: Callable[[str], None] = lambda text: None
    signal: Callable[[], int] = lambda: 0


class Launcher(Protocol):
    """Starts the workers of one attempt after the other."""

    def start(self, need: Need) -> None:
        """Gets ready, once for all attempts.

        Raises:
            ResourceError: the cluster is too small.
            RunError: Ray could not be started or reached.
        """

    @property
    def free(self) -> Free | None:
        """Tells what is free on each node; None where no nodes come and go."""

    def run(self, assignment: Assignment, driver: Driver) -> Outcome:
        """One attempt: from the newest checkpoint to the end.

        Raises:
            DlsysError: the attempt failed; `is_retried` tells whether another may go better.
        """

    def stop(self) -> None:
        """Leaves nothing of its own behind."""
