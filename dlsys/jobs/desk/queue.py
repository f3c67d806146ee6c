"""Whose turn it is: pure decisions about jobs and room.

Jobs start in order: higher priority first, then the earlier one. Nobody overtakes: a large job that
waits for room is not starved by small ones behind it. A job that still does not fit when those of
lower priority are counted out pauses as few of them as it takes, the last comers first; they go back
to the queue and go on from their last checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dlsys.jobs.desk.book import Job
from dlsys.jobs.desk.states import ACTIVE, WAITING
from dlsys.plan.room import Bundle, fits


@dataclass
class Decision:
    """What is to be done now.

    Attributes:
        start: jobs that may start, in order.
        pause: running jobs that must make room.
        reasons: why each other waiting job waits, by id.
    """

    start: list[Job] = field(default_factory=list)
    pause: list[Job] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)


def in_order(jobs: Iterable[Job]) -> list[Job]:
    """Jobs by their turn."""
    return sorted(jobs, key=lambda job: (-job.priority, job.submitted, job.id))


def decide(jobs: Sequence[Job], nodes: Sequence[Bundle]) -> Decision:
    """Who starts, who pauses, and why the others wait.

    Args:
        jobs: all that have not ended.
        nodes: the resources of each node that is there.
    """
    made = Decision()
    running = [job for job in jobs if job.state in ACTIVE]
    leaving = [job for job in running if job.asked]
    taken = [bundle for job in running for bundle in need(job, nodes)]
    queue = in_order(job for job in jobs if job.state in WAITING and not job.asked)
    for place, job in enumerate(queue, 1):
        wanted = need(job, nodes)
        if fits([*taken, *wanted], nodes):
            made.start.append(job)
            taken += wanted
            continue
        if not leaving:
            made.pause = _make_room(job, running, nodes)
        who = made.pause or leaving
        why = (
            f"{', '.join(j.id for j in who)} {'ends' if len(who) == 1 else 'end'} for it"
            if who
            else _lack(job, nodes)
        )
        made.reasons[job.id] = f"position {place}: {why}"
        for behind, other in enumerate(queue[place:], place + 1):
            made.reasons[other.id] = f"position {behind}: {job.id} is before it"
        break
    return made


def need(job: Job, nodes: Sequence[Bundle]) -> list[Bundle]:
    """What a job holds while it runs: all its bundles, for a sweep as often as it has trials at a time."""
    if job.times:
        return job.bundles * job.times
    times = 1
    while fits(job.bundles * (times + 1), nodes):
        times += 1
    return job.bundles * times


def _make_room(job: Job, running: Sequence[Job], nodes: Sequence[Bundle]) -> list[Job]:
    """The fewest of the least important jobs without which this one fits; none if that is not enough."""
    lower = [other for other in running if other.priority < job.priority and other.resumable]
    for count in range(1, len(lower) + 1):
        leave = in_order(lower)[-count:]
        stay = [other for other in running if other not in leave]
        if fits([b for other in [*stay, job] for b in need(other, nodes)], nodes):
            return leave
    return []


def _lack(job: Job, nodes: Sequence[Bundle]) -> str:
    wanted = need(job, nodes)
    text = " and ".join(
        f"{sum(bundle.get(key, 0.0) for bundle in wanted):g} {key}s"
        for key in ("CPU", "GPU")
        if any(bundle.get(key) for bundle in wanted)
    )
    have = " and ".join(
        f"{total:g} {key}s" for key in ("CPU", "GPU") if (total := sum(node.get(key, 0.0) for node in nodes))
    )
    return f"it needs {text or 'nothing'}, of {have or 'no node'}"
