"""The states of a job, and which may follow which."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """How a job stands."""

    QUEUED = "QUEUED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    RECOVERING = "RECOVERING"
    PAUSED = "PAUSED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"


ACTIVE = (State.PENDING, State.RUNNING, State.RECOVERING)
WAITING = (State.QUEUED, State.PAUSED)
ENDED = (State.SUCCEEDED, State.FAILED, State.STOPPED)

# An attempt may also have ended before anybody saw it run; one that died goes back to the queue.
_LEFT = {State.QUEUED, State.PAUSED, *ENDED}

NEXT: dict[State, set[State]] = {
    State.QUEUED: {State.QUEUED, State.PENDING, State.RECOVERING, State.FAILED, State.STOPPED},
    State.PAUSED: {State.PAUSED, State.RECOVERING, State.FAILED, State.STOPPED},
    State.PENDING: {State.PENDING, State.RUNNING, *_LEFT},
    State.RECOVERING: {State.RECOVERING, State.RUNNING, *_LEFT},
    State.RUNNING: {State.RUNNING, *_LEFT},
    State.SUCCEEDED: {State.QUEUED},
    State.FAILED: {State.QUEUED},
    State.STOPPED: {State.QUEUED},
}
"""What may follow a state. It may follow itself where only its reason changes, or what a job is asked."""
