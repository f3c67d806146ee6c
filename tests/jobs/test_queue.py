"""Whose turn it is: order, room, and who makes room for whom."""

from __future__ import annotations

import pytest

from dlsys.jobs.desk.book import Job
from dlsys.jobs.desk.queue import decide, need

NODES = [{"CPU": 1.0}, {"CPU": 1.0}]


def job(name: str, *bundles: float, priority: int = 0, at: float = 0.0, **more) -> Job:
    sizes = [{"CPU": size} for size in bundles]
    return Job(
        f"{name}-20260101-000000-0000", more.pop("kind", "train"), "c", sizes, at, priority=priority, **more
    )


def names(jobs: list[Job]) -> list[str]:
    return [job.id.partition("-")[0] for job in jobs]


def test_the_earlier_goes_first_and_the_more_important_before_it():
    queue = [job("a", 1, at=1), job("b", 1, at=2), job("c", 1, at=3, priority=5)]
    assert names(decide(queue, NODES).start) == ["c", "a"]


def test_nobody_overtakes_a_larger_one_that_waits():
    queue = [job("running", 1, state="RUNNING"), job("large", 1, 1, at=1), job("small", 1, at=2)]
    made = decide(queue, NODES)
    assert made.start == []
    assert made.pause == []
    reasons = {key.partition("-")[0]: text for key, text in made.reasons.items()}
    assert reasons["large"].startswith("position 1: it needs 2 CPUs, of 2 CPUs")
    assert reasons["small"].startswith("position 2: large")


def test_two_halves_share_a_slot_and_a_third_waits():
    one_cpu = [{"CPU": 1.0}]
    queue = [job(name, 0.5, at=at) for at, name in enumerate("abc")]
    assert names(decide(queue, one_cpu).start) == ["a", "b"]


def test_the_least_important_that_came_last_makes_room():
    running = [
        job("old", 1, at=1, state="RUNNING"),
        job("new", 1, at=2, state="RUNNING"),
        job("urgent", 1, at=3, priority=1),
    ]
    made = decide(running, NODES)
    assert names(made.pause) == ["new"]
    assert made.start == []
    running[1].asked = "pause"
    assert decide(running, NODES).pause == [], "one that leaves already is waited for"


def test_as_few_as_it_takes_make_room_and_none_when_that_is_not_enough():
    running = [job("a", 1, at=1, state="RUNNING"), job("b", 1, at=2, state="RUNNING")]
    assert names(decide([*running, job("urgent", 1, 1, at=3, priority=1)], NODES).pause) == ["a", "b"]
    running[0].priority = 2
    assert decide([*running, job("urgent", 1, 1, at=3, priority=1)], NODES).pause == []


@pytest.mark.parametrize(("retries", "paused"), [(0, []), (1, ["script"])])
def test_a_script_is_paused_only_where_it_may_be_started_again(retries, paused):
    """Otherwise it would start from nothing."""
    script = job("script", 1, 1, state="RUNNING", kind="script")
    script.retries = retries
    made = decide([script, job("urgent", 1, at=1, priority=1)], NODES)
    assert names(made.pause) == paused
    assert made.start == []


def test_equal_importance_waits():
    running = [job("a", 1, 1, state="RUNNING"), job("b", 1, at=1)]
    assert decide(running, NODES).pause == []


@pytest.mark.parametrize("state", ["QUEUED", "PAUSED"])
def test_a_job_that_is_to_stop_does_not_start(state):
    assert decide([job("a", 1, state=state, asked="stop")], NODES).start == []


def test_a_sweep_takes_as_many_trials_as_fit_where_it_says_auto():
    sweep = job("sweep", 1, times=0, kind="sweep")
    assert len(need(sweep, NODES)) == 2
    assert names(decide([sweep, job("a", 1, at=1)], NODES).start) == ["sweep"]
    sweep.times = 1
    assert names(decide([sweep, job("a", 1, at=1)], NODES).start) == ["sweep", "a"]
