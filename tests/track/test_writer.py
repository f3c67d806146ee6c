"""The writer: everything is delivered once, in whatever state MLflow is."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from dlsys.errors import TrackingError
from dlsys.paths import RunPaths, new_run_id, read_json, write_json
from dlsys.processes import alive, end_processes
from dlsys.track import writer as writing
from dlsys.track.spool import Spool
from dlsys.track.store import Store
from dlsys.track.writer import Writer


@pytest.fixture
def paths() -> RunPaths:
    paths = RunPaths.create(new_run_id("t"))
    record = {
        "run_id": paths.id,
        "uri": "fake",
        "experiment": "e",
        "params": {},
        "tags": {"dlsys.run_id": paths.id},
    }
    write_json(paths.record, record)
    me = psutil.Process()
    write_json(paths.owner, {"fence": 1, "pid": me.pid, "created": me.create_time(), "processes": []})
    return paths


class Flaky:
    """A store that is away on some calls, and may fail after it has taken the data."""

    def __init__(self, failing: set[int] = frozenset()) -> None:
        self.failing, self.calls = failing, 0
        self.rows: set[tuple[Any, ...]] = set()
        self.status: str | None = None

    def _call(self) -> None:
        self.calls += 1
        if self.calls in self.failing:
            raise TrackingError("away")

    def ensure_run(self, record: dict[str, Any], paths: RunPaths) -> str:
        self._call()
        return "m1"

    def log(self, run_id: str, points: list[tuple[Any, ...]], params: Any, tags: Any) -> dict[str, str]:
        # A lost reply: the rows are there, and the caller does not know. MLflow keeps one row
        # of equal (name, time, step, value), as a set does.
        self.rows.update(points)
        self._call()
        return {}

    def log_files(self, run_id: str, texts: dict[str, str], files: list[Any]) -> None:
        self._call()

    def finish(self, run_id: str, status: str, ended: int) -> None:
        self._call()
        self.status = status


def steps(store: Flaky) -> Counter[int]:
    return Counter(step for _, _, _, step in store.rows)


@pytest.mark.parametrize("failing", [set(), {1}, {1, 2, 3}, {2}, {3}, {4, 5, 6}, {7}, {8, 9}])
def test_everything_once_whatever_call_fails(
    failing: set[int], paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Flaky(failing)
    monkeypatch.setattr("dlsys.track.store.Store", lambda uri: store)
    monkeypatch.setattr(writing, "_POLL", 0.005)
    monkeypatch.setattr(writing, "_PAUSE", 0.005)
    thread = threading.Thread(target=writing.run, args=(paths,))
    thread.start()
    spool = Spool(paths.spool / "rank-0.jsonl")
    for step in range(1, 41):
        spool.metrics(step, {"a": step / 2})
        time.sleep(0.001)
    spool.close()
    write_json(paths.outcome, {"status": "FINISHED", "cause": ""})
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert steps(store) == dict.fromkeys(range(1, 41), 1)
    assert store.status == "FINISHED"


def test_a_writer_killed_between_sending_and_remembering_sends_the_same_again(paths: RunPaths) -> None:
    store = Flaky()
    spool = Spool(paths.spool / "rank-0.jsonl")
    spool.metrics(1, {"a": 1.0})
    Writer(paths, store).deliver()
    paths.cursor.unlink()
    spool.metrics(2, {"a": 2.0})
    Writer(paths, store).deliver()
    spool.close()
    assert steps(store) == {1: 1, 2: 1}


def test_gives_up_after_the_runs_end_and_leaves_the_rest(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Flaky(set(range(1, 1000)))
    monkeypatch.setattr("dlsys.track.store.Store", lambda uri: store)
    monkeypatch.setattr(writing, "_GRACE", 0.2)
    monkeypatch.setattr(writing, "_POLL", 0.01)
    monkeypatch.setattr(writing, "_PAUSE", 0.01)
    spool = Spool(paths.spool / "rank-0.jsonl")
    spool.metrics(1, {"a": 1.0})
    spool.close()
    write_json(paths.outcome, {"status": "FINISHED", "cause": ""})
    assert writing.run(paths) == 3
    store.failing = set()
    assert writing.sync(paths) == 1
    assert store.status == "FINISHED"


def test_a_store_that_is_away_is_asked_ever_less_often_until_the_run_ends(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        """Passes as soon as someone sleeps; the run ends after a minute."""

        now = 0.0

        def monotonic(self) -> float:
            return self.now

        def sleep(self, seconds: float) -> None:
            assert seconds > 0
            self.now += seconds
            if self.now >= 60 and not paths.outcome.exists():
                write_json(paths.outcome, {"status": "FINISHED", "cause": ""})

    asked: list[float] = []

    class Away(Flaky):
        def _call(self) -> None:
            asked.append(clock.now)
            raise TrackingError("away")

    clock = Clock()
    monkeypatch.setattr(writing, "time", clock)
    monkeypatch.setattr("dlsys.track.store.Store", lambda uri: Away())
    assert writing.run(paths) == 3
    assert asked[:6] == pytest.approx([0, 2, 6, 14, 24, 34])
    # The end is noticed at once; then once a second, for the time of grace.
    last = [moment for moment in asked if moment >= 60]
    assert last == pytest.approx([60.0 + i for i in range(len(last))], abs=0.3)
    assert len(last) == pytest.approx(writing._GRACE, abs=2)


def test_a_vanished_driver_ends_what_it_started(paths: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Flaky()
    monkeypatch.setattr("dlsys.track.store.Store", lambda uri: store)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    created = psutil.Process(gone.pid).create_time()
    gone.wait()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    process = psutil.Process(child.pid)
    write_json(
        paths.owner,
        {"fence": 1, "pid": gone.pid, "created": created, "processes": [[child.pid, process.create_time()]]},
    )
    assert writing.run(paths) == 0
    assert child.wait(5) == -9
    assert store.status == "FAILED"
    assert read_json(paths.outcome)["cause"] == "the driver process died"


def test_a_new_driver_is_left_to_its_own_writer(paths: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Flaky()
    monkeypatch.setattr("dlsys.track.store.Store", lambda uri: store)
    monkeypatch.setattr(writing, "_POLL", 0.005)
    monkeypatch.setattr(writing, "_PAUSE", 0.005)
    thread = threading.Thread(target=writing.run, args=(paths,))
    thread.start()
    time.sleep(0.05)
    write_json(paths.owner, {**read_json(paths.owner), "fence": 2})
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert store.status is None, "the run goes on"


def test_a_number_used_again_is_another_process() -> None:
    me = psutil.Process()
    assert alive(me.pid, me.create_time())
    assert not alive(me.pid, me.create_time() - 100)
    end_processes([[me.pid, me.create_time() - 100]])


def test_a_locked_sqlite_store_is_waited_for(paths: RunPaths, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/m.db"
    record = read_json(paths.record)
    write_json(paths.record, {**record, "uri": uri})
    Store(uri)
    spool = Spool(paths.spool / "rank-0.jsonl")
    spool.metrics(1, {"a": 1.0})
    spool.close()
    write_json(paths.outcome, {"status": "FINISHED", "cause": ""})
    lock = sqlite3.connect(tmp_path / "m.db", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    process = subprocess.Popen(
        [sys.executable, "-m", "dlsys.track.writer", str(paths.root)], env={**os.environ}
    )
    try:
        time.sleep(4)
        assert process.poll() is None
        lock.execute("ROLLBACK")
        assert process.wait(60) == 0
    finally:
        lock.close()
        process.kill()
        process.wait()
    (run,) = Store(uri).runs()
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"a": 1.0}


def test_several_first_looks_at_a_fresh_store_at_once(tmp_path: Path) -> None:
    """MLflow's own migration crashes when several processes start it together."""
    code = f"from dlsys.track.store import Store; Store('sqlite:///{tmp_path}/new/m.db').experiment('e')"
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait(120) for process in processes] == [0, 0, 0]


def test_an_unreachable_server_is_told_in_seconds() -> None:
    began = time.monotonic()
    with pytest.raises(TrackingError, match=r"MLflow at http://127\.0\.0\.1:9"):
        Store("http://127.0.0.1:9")
    assert time.monotonic() - began < 30, "MLflow's own retries take 4 minutes"


def test_a_writer_leaves_the_cores_to_the_workers() -> None:
    """Also where niceness counts only within a session's group of processes, and it has one of its own."""
    code = "from dlsys.track import writer; writer._step_back(); print(open('/proc/self/autogroup').read())"
    enabled = Path("/proc/sys/kernel/sched_autogroup_enabled")
    if not enabled.exists() or enabled.read_text().strip() != "1":
        pytest.skip("this Linux does not group processes by session")
    done = subprocess.run(
        [sys.executable, "-c", code], start_new_session=True, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith("nice 19")
