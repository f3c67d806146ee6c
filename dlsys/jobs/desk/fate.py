"""What becomes of a job: pure decisions about what the desk knows, what Ray says and what time it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from dlsys.jobs.desk.book import Job
from dlsys.jobs.desk.ray_api import RayJob
from dlsys.jobs.desk.states import ACTIVE, ENDED, WAITING, State


@dataclass(frozen=True)
class Change:
    """What is written down of a job anew.

    Attributes:
        state: its state from now on; the one it has, where only its reason or the rest changes.
        reason: why.
        more: other fields of the job, by name.
    """

    state: State
    reason: str
    more: Mapping[str, Any] = field(default_factory=dict)


class Act(Enum):
    """What the desk does about a job that stays as it is."""

    NOTHING = "nothing"
    GIVE = "give it to Ray"
    STOP = "ask Ray to stop it"


def after_look(
    job: Job, seen: RayJob | None, *, node_lost: bool, outcome: Mapping[str, Any], now: float
) -> Change | Act:
    """What becomes of a job now that Ray was asked how its attempt stands.

    Args:
        seen: Ray's answer; None: it does not know the attempt.
        node_lost: whether the node is dead that the attempt's driver ran on.
        outcome: what an attempt that has ended left in `outcome.json`; empty where it left nothing.
        now: in seconds since 1970.
    """
    if job.state not in ACTIVE:
        return Act.NOTHING
    if seen is None:
        # Ray never got it, or a new head has no memory of it.
        return died(job, "the cluster's head was lost", now) if job.state is State.RUNNING else Act.GIVE
    if seen.ended:
        return _judged(job, seen, outcome, now)
    if node_lost:
        # Ray itself finds out when it is given a next job, or never.
        return died(job, "the node that its driver ran on was lost", now)
    if job.asked:
        return Act.STOP
    if seen.status == "RUNNING" and job.state is not State.RUNNING:
        return Change(State.RUNNING, "")
    return Act.NOTHING


def _judged(job: Job, seen: RayJob, outcome: Mapping[str, Any], now: float) -> Change:
    """What a job is whose attempt has ended."""
    # FINISHED, FAILED or KILLED, as in MLflow; None where the attempt died before it came to one.
    verdict, code = outcome.get("status"), {"exit_code": seen.exit_code}
    if verdict == "FINISHED":
        return ended(job, State.SUCCEEDED, "", now, **code)
    if job.asked == "pause" and verdict != "FAILED":
        return Change(State.PAUSED, "made room for another job", {**_left(job, now), "asked": "", **code})
    if job.asked == "stop":
        return ended(job, State.STOPPED, "stopped", now, **code)
    if verdict == "FAILED":
        cause = outcome.get("cause") or f"it ended with exit code {seen.exit_code}"
        return ended(job, State.FAILED, cause, now, **code)
    if seen.status == "STOPPED" or verdict == "KILLED":
        return ended(job, State.STOPPED, "stopped from outside", now, **code)
    lines = [line for line in seen.message.strip().splitlines() if line.strip()]
    return died(job, lines[0] if lines else "it died without a word", now, **code)


def died(job: Job, why: str, now: float, **more: Any) -> Change:
    """An attempt ended without a verdict: the job starts again, as often as it may."""
    deaths = job.deaths + 1
    more |= {"deaths": deaths}
    if job.asked == "stop":
        return ended(job, State.STOPPED, "stopped", now, **more)
    if deaths > job.retries:
        return ended(job, State.FAILED, f"died {deaths} times; the last time: {why}", now, **more)
    return Change(State.QUEUED, f"starts again: {why}", {**_left(job, now), "asked": "", **more})


def ended(job: Job, state: State, reason: str, now: float, **more: Any) -> Change:
    """A job is over."""
    return Change(state, reason, {**_left(job, now), "ended": now, "asked": "", **more})


def started(job: Job, now: float) -> Change:
    """A waiting job has its turn: its next attempt."""
    again = job.state is State.PAUSED or job.attempt > 0
    more = {"attempt": job.attempt + 1, "since": now, "started": job.started or now, "asked": ""}
    return Change(State.RECOVERING if again else State.PENDING, "Ray starts it", more)


def stopped(job: Job, now: float) -> Change | Act:
    """Somebody wants a job to end: in the queue at once, else with a last checkpoint."""
    if job.state in WAITING:
        return ended(job, State.STOPPED, "stopped while it waited", now)
    return Act.NOTHING if job.state in ENDED else Change(job.state, "is being stopped", {"asked": "stop"})


def retried(job: Job, now: float) -> Change | Act:
    """Somebody wants a job that has ended to go on from its last checkpoint."""
    if job.state not in ENDED:
        return Act.NOTHING
    more = {"ended": None, "exit_code": None, "deaths": 0, "submitted": now, "asked": ""}
    return Change(State.QUEUED, "", more)


def _left(job: Job, now: float) -> dict[str, Any]:
    """Its resources are free from now on."""
    return {} if job.since is None else {"ran": job.ran + (now - job.since), "since": None}
