"""What follows an attempt: a pure policy, which reads no file and no clock."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dlsys.errors import DlsysError, OutOfMemoryError
from dlsys.jobs.launch.assignment import is_retried


@dataclass(frozen=True)
class Done:
    """Training has come to its end."""


@dataclass(frozen=True)
class Retry:
    """Another attempt starts from the last checkpoint.

    Attributes:
        note: why, in a sentence.
    """

    note: str


@dataclass(frozen=True)
class Raise:
    """The run has failed.

    Attributes:
        error: of this.
    """

    error: DlsysError


@dataclass(frozen=True)
class Resize:
    """The attempt made way for one with another number of workers, which is no failure.

    Attributes:
        workers: how many there should be room for.
    """

    workers: int


@dataclass(frozen=True)
class Attempts:
    """What the attempts so far leave to be known.

    Attributes:
        retries: how many failures are followed by another attempt.
        failed: how many there have been.
        short_at: the step at which memory was short the last time.
        again: what another attempt does, as the end of a sentence.
    """

    retries: int
    failed: int = 0
    short_at: int | None = None
    again: str = "starts from the last checkpoint"

    def after_failure(self, error: DlsysError, reached: int) -> tuple[Attempts, Retry | Raise]:
        """What follows a failed attempt, and what is known then.

        A shortage of memory may have been others' doing: it is a failure for good where the attempt came
        no further than the last one that was short.

        Args:
            reached: the last step that is recorded.
        """
        if not is_retried(error) or self.failed == self.retries:
            return self, Raise(error)
        known = replace(self, failed=self.failed + 1)
        if isinstance(error, OutOfMemoryError):
            if reached == self.short_at:
                text = f"{error}; this is the second time, and no further than step {reached}"
                return self, Raise(OutOfMemoryError(text, hint=error.hint))
            known = replace(known, short_at=reached)
        count = f"attempt {known.failed + 1} of {self.retries + 1}"
        return known, Retry(f"{error}; {count} {self.again}")


def after_end(reason: str, *, asked: bool, room: int) -> Done | Resize:
    """What follows an attempt that did not fail.

    Args:
        reason: what ended it, as in `dlsys.train.loop.Result`.
        asked: whether somebody asked the run to end.
        room: how many workers there was room for at the last look.
    """
    return Resize(room) if reason == "interrupted" and not asked else Done()
