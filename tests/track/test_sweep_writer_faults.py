"""A sweep's writer: the parent and every trial, once each, whoever dies and when."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from operator import eq
from pathlib import Path
from typing import Any

import psutil
import pytest
from sweep_runs import describe, end, found, own, pass_over, record_steps, statuses, steps, trial

from dlsys.errors import TrackingError
from dlsys.paths import RunPaths, new_run_id, read_json
from dlsys.track.store import Store
from dlsys.track.writer import Delivery, delivered, sync

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from outage import Server


def test_fifty_trials_once_each_under_one_parent(sweep: RunPaths, uri: str) -> None:
    for number in range(25):
        trial(sweep, number, steps=number % 3 + 1, status="FINISHED")
    delivery = Delivery(sweep, Store(uri))
    pass_over(delivery)
    for number in range(25, 50):
        trial(sweep, number, steps=number % 3 + 1)
    pass_over(delivery)
    for number in range(25, 50):
        paths = sweep.trial(number)
        paths.spec.write_text("name: t\n")
        paths.log(0).write_text("hello\n" if number == 25 else "")
        (paths.stacks / "attempt-1").mkdir()
        end(paths, "FAILED" if number == 49 else "FINISHED", "out of memory" if number == 49 else "")
    record_steps(sweep, range(1, 51))
    pass_over(delivery, end(sweep))
    assert delivered(sweep)
    runs = found(uri)
    parent = runs.pop(sweep.id)
    assert parent.info.status == "FINISHED"
    assert steps(uri, parent) == list(range(1, 51))
    assert sorted(runs) == [sweep.trial(number).id for number in range(50)]
    for number in range(50):
        run = runs[sweep.trial(number).id]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.params == {"lr": str(number % 10)}
        assert steps(uri, run) == list(range(1, number % 3 + 2))
        assert run.info.status == ("FAILED" if number == 49 else "FINISHED")
        assert run.info.start_time <= run.info.end_time
    assert runs[sweep.trial(49).id].data.tags["dlsys.cause"] == "out of memory"
    client = Store(uri).client
    kept = {n: [f.path for f in client.list_artifacts(runs[sweep.trial(n).id].info.run_id)] for n in (25, 26)}
    assert kept == {25: ["logs", "spec.yaml"], 26: ["spec.yaml"]}, "an empty log is not worth a file"


class Killed(BaseException):
    """The writer process ends here, without another word."""


def ailing(store: Store, fails: Callable[[int], bool], error: BaseException, *, after: bool) -> Store:
    """A store with an error in some of the calls that change something, before or after the change."""
    count = iter(range(1, 1000))

    def wrap(do: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            failing = fails(next(count))
            if failing and not after:
                raise error
            result = do(*arguments, **named)
            if failing:
                raise error
            return result

        return wrapped

    for name in ("create_run", "log_batch", "set_terminated", "update_run"):
        setattr(store.client, name, wrap(getattr(store.client, name)))
    return store


@pytest.mark.parametrize("after", [False, True])
def test_a_writer_that_dies_at_any_call(after: bool, sweep: RunPaths, uri: str) -> None:
    trial(sweep, 0, steps=3, status="FINISHED")
    trial(sweep, 1, steps=2, status="FAILED")
    trial(sweep, 2, steps=1)
    outcome = end(sweep, "KILLED")
    calls = 0
    while not delivered(sweep):
        calls += 1
        # The first writer dies in its first call, the next one in its second, and so on.
        with contextlib.suppress(Killed):
            store = ailing(Store(uri), partial(eq, calls), Killed(), after=after)
            pass_over(Delivery(sweep, store), outcome)
        assert calls < 100
    assert calls > 5
    all_is_there(sweep, uri)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_a_store_that_fails_often(after: bool, seed: int, sweep: RunPaths, uri: str) -> None:
    chance = random.Random(seed)
    error = ConnectionError("no answer")
    store = ailing(Store(uri), lambda call: chance.random() < 0.4, error, after=after)
    delivery: Delivery | None = None
    trial(sweep, 0, steps=3, status="FINISHED")
    trial(sweep, 1, steps=2, status="FAILED")
    trial(sweep, 2, steps=1)
    outcome = end(sweep, "KILLED")
    errors = 0
    while not delivered(sweep):
        try:
            delivery = delivery or Delivery(sweep, store)
            pass_over(delivery, outcome)
        except TrackingError:
            errors += 1
        assert errors < 100
    assert errors > 1
    all_is_there(sweep, uri)


def all_is_there(sweep: RunPaths, uri: str) -> None:
    runs = found(uri)
    assert statuses(uri) == {"sweep": "KILLED", "00000": "FINISHED", "00001": "FAILED", "00002": "KILLED"}
    assert [steps(uri, runs[sweep.trial(n).id]) for n in range(3)] == [[1, 2, 3], [1, 2], [1]]
    assert all(runs[sweep.trial(n).id].data.params == {"lr": str(n)} for n in range(3))


def write(sweep: RunPaths) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "dlsys.track.writer", str(sweep.root)], env={**os.environ})


def rows(uri: str) -> int:
    with sqlite3.connect(uri.removeprefix("sqlite:///"), timeout=30) as connection:
        (count,) = connection.execute("SELECT count(*) FROM runs").fetchone()
    return int(count)


def test_writers_and_a_driver_that_are_killed(
    sweep: RunPaths, uri: str, driver: subprocess.Popen[bytes]
) -> None:
    """The writer at several moments, then the driver: what ran is KILLED, what never started is not there."""
    own(sweep, psutil.Process(driver.pid))
    for number in range(50):
        trial(sweep, number, steps=2, status=None if number >= 45 else "FINISHED")
    trial(sweep, 50)
    for made in (2, 20, 40):
        writer = write(sweep)
        deadline = time.monotonic() + 120
        while rows(uri) < made:
            assert writer.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        writer.kill()
        writer.wait()
    writer = write(sweep)
    driver.kill()
    driver.wait()
    try:
        assert writer.wait(120) == 0
    finally:
        writer.kill()
    assert read_json(sweep.outcome)["cause"] == "the driver process died"
    told = statuses(uri)
    assert told.pop("sweep") == "FAILED"
    assert len(told) == 50
    assert Counter(told.values()) == {"FINISHED": 45, "KILLED": 5}
    runs = found(uri)
    assert all(steps(uri, runs[sweep.trial(number).id]) == [1, 2] for number in range(50))
    assert not sweep.trial(45).outcome.exists(), "a killed trial has not ended for good"


@pytest.mark.faults
def test_a_server_that_is_gone_for_the_rest_of_the_sweep(tmp_path: Path) -> None:
    server = Server(tmp_path)
    writer = None
    try:
        sweep = RunPaths.create(new_run_id("s"))
        describe(sweep, server.uri)
        own(sweep, psutil.Process())
        trial(sweep, 0, steps=1, status="FINISHED")
        trial(sweep, 1, steps=1)
        writer = write(sweep)
        deadline = time.monotonic() + 120
        while not all(sweep.trial(number).cursor.exists() for number in range(2)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        server.signal(signal.SIGKILL)
        record_steps(sweep.trial(1), range(2, 5))
        end(sweep.trial(1))
        trial(sweep, 2, steps=2, status="FAILED")
        end(sweep)
        assert writer.wait(120) == 3
        server.restart()
        assert sync(sweep) == 5
        runs = found(server.uri)
        told = {"sweep": "FINISHED", "00000": "FINISHED", "00001": "FINISHED", "00002": "FAILED"}
        assert statuses(server.uri) == told
        assert [steps(server.uri, runs[sweep.trial(n).id]) for n in range(3)] == [[1], [1, 2, 3, 4], [1, 2]]
        assert delivered(sweep)
    finally:
        if writer is not None:
            writer.kill()
            writer.wait()
        server.close()
