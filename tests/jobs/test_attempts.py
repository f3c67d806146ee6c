"""What follows an attempt, as a table."""

from __future__ import annotations

import pytest

from dlsys.errors import (
    CheckpointError,
    DataError,
    DlsysError,
    FencedError,
    HangError,
    Interrupted,
    NonFiniteError,
    OutOfMemoryError,
    RunError,
    UsageError,
    WorkerDiedError,
    WorkloadError,
)
from dlsys.jobs.attempts import Attempts, Done, Raise, Resize, Retry, after_end

DIED, HUNG, SHORT = (
    WorkerDiedError("it died"),
    HangError("it hangs"),
    OutOfMemoryError("no room", hint="Shrink."),
)


@pytest.mark.parametrize(
    ("error", "before", "reached", "after", "note"),
    [
        (DIED, Attempts(3), 7, Attempts(3, 1), "it died; attempt 2 of 4"),
        (HUNG, Attempts(3, 2), 7, Attempts(3, 3), "it hangs; attempt 4 of 4"),
        (SHORT, Attempts(1), 0, Attempts(1, 1, 0), "no room; attempt 2 of 2"),
        (SHORT, Attempts(3, 1, 5), 6, Attempts(3, 2, 6), "no room; attempt 3 of 4"),
        # It died of something else in between, and that says nothing about memory.
        (DIED, Attempts(3, 1, 5), 5, Attempts(3, 2, 5), "it died; attempt 3 of 4"),
    ],
)
def test_another_attempt_follows(
    error: DlsysError, before: Attempts, reached: int, after: Attempts, note: str
) -> None:
    assert before.after_failure(error, reached) == (after, Retry(f"{note} starts from the last checkpoint"))


@pytest.mark.parametrize(
    ("error", "before"),
    [
        (DIED, Attempts(0)),
        (DIED, Attempts(3, 3)),
        (SHORT, Attempts(2, 2, 5)),  # as it is: no word of a second time
        *[
            (kind("wrong"), Attempts(3))
            for kind in (
                CheckpointError,
                DataError,
                FencedError,
                Interrupted,
                NonFiniteError,
                RunError,
                UsageError,
                WorkloadError,
            )
        ],
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, DlsysError) else str(value),
)
def test_it_ends_with_the_error_itself(error: DlsysError, before: Attempts) -> None:
    after, then = before.after_failure(error, reached=5)
    assert after == before
    assert isinstance(then, Raise)
    assert then.error is error


def test_memory_that_is_short_again_at_the_same_step_ends_it() -> None:
    _, then = Attempts(3, 1, short_at=5).after_failure(SHORT, reached=5)
    assert isinstance(then, Raise)
    assert isinstance(then.error, OutOfMemoryError)
    assert str(then.error) == "no room; this is the second time, and no further than step 5"
    assert then.error.hint == "Shrink."


@pytest.mark.parametrize(
    ("reason", "asked", "then"),
    [
        ("finished", False, Done()),
        ("target", False, Done()),
        ("time", True, Done()),
        ("interrupted", True, Done()),
        ("interrupted", False, Resize(3)),
    ],
)
def test_an_end_is_the_end_unless_it_makes_room(reason: str, asked: bool, then: Done | Resize) -> None:
    assert after_end(reason, asked=asked, room=3) == then
