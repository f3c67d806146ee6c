"""What becomes of a job: every state, whatever Ray says of it."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from dlsys.jobs.desk import fate
from dlsys.jobs.desk.book import Job
from dlsys.jobs.desk.fate import Act, Change
from dlsys.jobs.desk.ray_api import RayJob
from dlsys.jobs.desk.states import ACTIVE, ENDED, WAITING, State

Q, P, R, V = State.QUEUED, State.PENDING, State.RUNNING, State.RECOVERING
A, S, F, X = State.PAUSED, State.SUCCEEDED, State.FAILED, State.STOPPED
GIVE, STOP, NOTHING = Act.GIVE, Act.STOP, Act.NOTHING
STATUSES = ("PENDING", "RUNNING", "SUCCEEDED", "FAILED", "STOPPED")
NOW = 1000.0


def job(state: State, **more: Any) -> Job:
    told = {"kind": "train", "since": 900.0 if state in ACTIVE else None, "ran": 5.0, "attempt": 1, **more}
    return Job("a-20260101-000000-0000", cluster="c", bundles=[], submitted=1.0, state=state, **told)


def ray(status: str | None, code: int | None = None, message: str = "") -> RayJob | None:
    return None if status is None else RayJob(status, message, code, "node")


def look(
    of: Job,
    status: str | None,
    *,
    verdict: str | None = None,
    code: int | None = None,
    lost: bool = False,
    cause: str = "",
    message: str = "",
) -> Change | Act:
    outcome = {} if verdict is None else {"status": verdict, "cause": cause}
    seen = ray(status, code, message)
    return fate.after_look(of, seen, node_lost=lost, outcome=outcome, now=NOW)


def becomes(found: Change | Act) -> State | Act:
    return found.state if isinstance(found, Change) else found


# Of a job that nobody asked anything, whose attempt left no verdict.
LOOKS: dict[State, list[State | Act]] = {
    # Ray does not know it, PENDING, RUNNING, SUCCEEDED, FAILED, STOPPED
    Q: [NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING],
    A: [NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING],
    P: [GIVE, NOTHING, R, Q, Q, X],
    V: [GIVE, NOTHING, R, Q, Q, X],
    R: [Q, NOTHING, NOTHING, Q, Q, X],
    S: [NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING],
    F: [NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING],
    X: [NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING],
}


@pytest.mark.parametrize("state", State)
def test_whatever_ray_says_of_it(state: State) -> None:
    assert [becomes(look(job(state), status)) for status in (None, *STATUSES)] == LOOKS[state]


# An attempt that was asked to stop or pause, and has not ended.
ASKED: dict[State, list[State | Act]] = {
    # Ray does not know it, PENDING, RUNNING
    P: [GIVE, STOP, STOP],
    V: [GIVE, STOP, STOP],
    R: [Q, STOP, STOP],
}


@pytest.mark.parametrize("asked", ["stop", "pause"])
@pytest.mark.parametrize("state", ACTIVE)
def test_an_attempt_that_is_to_end_is_stopped(state: State, asked: str) -> None:
    expected = list(ASKED[state])
    if state is R and asked == "stop":
        expected[0] = X  # it was lost with the head, and nobody wants it back
    found = [becomes(look(job(state, asked=asked), status)) for status in (None, "PENDING", "RUNNING")]
    assert found == expected


# The verdict that an attempt left × what it was asked × what Ray calls its end.
VERDICTS: dict[str | None, dict[str, list[State]]] = {
    # SUCCEEDED, FAILED, STOPPED
    "FINISHED": {"": [S, S, S], "stop": [S, S, S], "pause": [S, S, S]},
    "FAILED": {"": [F, F, F], "stop": [X, X, X], "pause": [F, F, F]},
    "KILLED": {"": [X, X, X], "stop": [X, X, X], "pause": [A, A, A]},
    None: {"": [Q, Q, X], "stop": [X, X, X], "pause": [A, A, A]},
}


@pytest.mark.parametrize("state", ACTIVE)
@pytest.mark.parametrize("asked", ["", "stop", "pause"])
@pytest.mark.parametrize("verdict", VERDICTS)
def test_an_attempt_that_ended(verdict: str | None, asked: str, state: State) -> None:
    found = [becomes(look(job(state, asked=asked), status, verdict=verdict)) for status in STATUSES[2:]]
    assert found == VERDICTS[verdict][asked]


@pytest.mark.parametrize("status", ["PENDING", "RUNNING"])
def test_a_driver_dies_with_its_node(status: str) -> None:
    found = look(job(R), status, lost=True)
    assert isinstance(found, Change)
    assert (found.state, found.reason) == (Q, "starts again: the node that its driver ran on was lost")
    assert becomes(look(job(R, asked="stop"), status, lost=True)) == X
    assert becomes(look(job(R), "SUCCEEDED", verdict="FINISHED", lost=True)) == S, "it had ended before"


def test_a_job_starts_again_as_often_as_it_may() -> None:
    one, states = job(R, retries=2), []
    while one.state is R:
        found = look(one, "FAILED", message="\nkilled by a signal\nmore")
        assert isinstance(found, Change)
        states.append((found.state, found.reason))
        one.move(found.state, found.reason, **found.more)
        if one.state is Q:
            one.move(V, "")
            one.move(R, "")
    assert states == [
        (Q, "starts again: killed by a signal"),
        (Q, "starts again: killed by a signal"),
        (F, "died 3 times; the last time: killed by a signal"),
    ]


REASONS = [
    (look(job(R), "FAILED", verdict="FAILED", cause="out of memory"), "out of memory"),
    (look(job(R), "FAILED", code=3, verdict="FAILED"), "it ended with exit code 3"),
    (look(job(R), "STOPPED"), "stopped from outside"),
    (look(job(R), "SUCCEEDED"), "starts again: it died without a word"),
    (look(job(R), None), "starts again: the cluster's head was lost"),
    (look(job(R, asked="pause"), "STOPPED", verdict="KILLED"), "made room for another job"),
    (look(job(R, asked="stop"), "STOPPED", verdict="KILLED"), "stopped"),
    (look(job(R), "SUCCEEDED", verdict="FINISHED"), ""),
]


@pytest.mark.parametrize(("found", "reason"), REASONS, ids=[reason or "none" for _, reason in REASONS])
def test_it_says_why(found: Change, reason: str) -> None:
    assert found.reason == reason


def test_seconds_count_while_resources_are_held() -> None:
    for status, verdict in [("FAILED", "FAILED"), ("SUCCEEDED", "FINISHED"), ("STOPPED", "KILLED")]:
        found = look(job(R), status, verdict=verdict)
        assert isinstance(found, Change)
        assert (found.more["ran"], found.more["since"], found.more["ended"]) == (105.0, None, NOW)
    for found in (look(job(R), None), look(job(R, asked="pause"), "STOPPED")):
        assert isinstance(found, Change)
        assert (found.more["ran"], found.more["since"]) == (105.0, None)
        assert "ended" not in found.more
    waited = fate.stopped(job(Q), NOW)
    assert isinstance(waited, Change)
    assert waited.more == {"ended": NOW, "asked": ""}, "a job that waits holds nothing"


def test_a_turn_is_an_attempt() -> None:
    found = fate.started(job(Q, attempt=0), NOW)
    assert (found.state, found.more["attempt"], found.more["started"], found.more["since"]) == (
        P,
        1,
        NOW,
        NOW,
    )
    again = fate.started(job(Q, attempt=1, started=7.0), NOW)
    assert (again.state, again.more["attempt"], again.more["started"]) == (V, 2, 7.0)
    assert fate.started(job(A), NOW).state == V


@pytest.mark.parametrize("state", State)
def test_what_a_user_asks(state: State) -> None:
    stop, retry = fate.stopped(job(state), NOW), fate.retried(job(state, deaths=2, exit_code=1), NOW)
    if state in ACTIVE:
        assert stop == Change(state, "is being stopped", {"asked": "stop"})
    else:
        assert becomes(stop) == (X if state in WAITING else NOTHING)
    assert becomes(retry) == (Q if state in ENDED else NOTHING)
    if isinstance(retry, Change):
        fresh = {"ended": None, "exit_code": None, "deaths": 0, "submitted": NOW, "asked": ""}
        assert retry.more == fresh


# Which state (a column) may follow which (a row).
FOLLOWS = """
            QUEUED PENDING RUNNING RECOVERING PAUSED SUCCEEDED FAILED STOPPED
QUEUED      yes    yes     -       yes        -      -         yes    yes
PENDING     yes    yes     yes     -          yes    yes       yes    yes
RUNNING     yes    -       yes     -          yes    yes       yes    yes
RECOVERING  yes    -       yes     yes        yes    yes       yes    yes
PAUSED      -      -       -       yes        yes    -         yes    yes
SUCCEEDED   yes    -       -       -          -      -         -      -
FAILED      yes    -       -       -          -      -         -      -
STOPPED     yes    -       -       -          -      -         -      -
"""


def follows() -> list[tuple[State, State, bool]]:
    head, *lines = [line.split() for line in FOLLOWS.strip().splitlines()]
    return [
        (State(line[0]), State(name), cell == "yes")
        for line in lines
        for name, cell in zip(head, line[1:], strict=True)
    ]


@pytest.mark.parametrize(("before", "after", "allowed"), follows())
def test_which_state_may_follow_which(before: State, after: State, allowed: bool) -> None:
    one = job(before)
    if allowed:
        one.move(after, "because", deaths=1)
        assert (one.state, one.reason, one.deaths) == (after, "because", 1)
    else:
        with pytest.raises(ValueError, match=f"{after} cannot follow {before}"):
            one.move(after, "because", deaths=1)
        assert (one.state, one.reason, one.deaths) == (before, "", 0), "and nothing has changed"


def test_the_tables_have_every_pair() -> None:
    pairs = [(before, after) for before, after, _ in follows()]
    assert sorted(pairs) == sorted(itertools.product(State, State))
    assert {*ACTIVE, *WAITING, *ENDED} == {*State}


def test_no_decision_breaks_the_table() -> None:
    """Whatever comes together."""
    for state, status, verdict in itertools.product(State, (None, *STATUSES), VERDICTS):
        for asked, kind, lost, deaths in itertools.product(
            ("", "stop", "pause"), ("train", "script"), (False, True), (0, 3)
        ):
            one = job(state, asked=asked, kind=kind, deaths=deaths)
            code = 1 if status == "FAILED" else None
            found = look(one, status, verdict=verdict, code=code, lost=lost)
            if isinstance(found, Change):
                one.move(found.state, found.reason, **found.more)
                assert one.since is None or one.state in ACTIVE
                assert one.ended is None or one.state in ENDED


def test_a_state_is_written_by_its_name() -> None:
    told = json.loads(json.dumps(job(R).to_dict()))
    assert told["state"] == "RUNNING"
    assert Job(**told).state is R
