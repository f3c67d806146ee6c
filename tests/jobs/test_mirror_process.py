"""The process that mirrors a run, and what drivers and workers ask of it."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import job
from object_store import Server, server

from dlsys.cluster.commands import free_port
from dlsys.errors import RunError, UsageError
from dlsys.jobs.desk.book import Job, paths_of
from dlsys.jobs.desk.keeping import Keeping
from dlsys.jobs.launch.assignment import Assignment
from dlsys.jobs.mirror import node as module
from dlsys.jobs.mirror.node import Mirror, refuse_passwords
from dlsys.jobs.mirror.objects import Objects
from dlsys.jobs.mirror.recall import recall
from dlsys.paths import RunPaths, write_json

RUN = "run-20260101-120000-abcd"


@pytest.fixture
def paths(home: Path) -> RunPaths:
    return RunPaths.create(RUN)


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the run, as far as the mirror knows."""
    process = subprocess.Popen(["sleep", "1000"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch, s3: Server) -> tuple[str, int]:
    """The address of a store whose server is not there, and its port."""
    port = free_port()
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    return "s3://bucket/dlsys", port


def until(condition: Callable[[], bool], timeout: float = 120) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s"
        time.sleep(0.05)


def mirrored(paths: RunPaths) -> bool:
    """Whether a process mirrors the run."""
    with open(paths.root / ".mirror" / "running.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def start(paths: RunPaths, store: str, worker: subprocess.Popen[bytes]) -> Mirror:
    mirror = Mirror(paths, store)
    mirror.use(worker.pid, "driver")
    module._start(paths, store)
    until(lambda: mirrored(paths))
    return mirror


def test_it_sends_what_a_killed_worker_wrote_and_ends(
    paths: RunPaths, store: str, worker: subprocess.Popen[bytes]
) -> None:
    start(paths, store, worker)
    paths.log(0).write_text("said")
    until(lambda: f"runs/{RUN}/logs/rank-0.log" in Objects(store).files("", deep=True))
    (paths.spool / "rank-0.jsonl").write_text('{"s":1}\n')
    worker.kill()
    until(lambda: not mirrored(paths))
    assert Objects(store).read(f"runs/{RUN}/spool/rank-0.jsonl") == b'{"s":1}\n'


def test_a_store_that_is_away_is_told_once_and_gets_all_when_it_is_back(
    paths: RunPaths, away: tuple[str, int], worker: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    store, port = away
    mirror = start(paths, store, worker)
    (paths.spool / "rank-0.jsonl").write_text('{"s":1}\n')
    told: list[str] = []
    until(lambda: bool(told.append(mirror.trouble()) or told[-1]))
    assert "s3://bucket/dlsys" in told[-1]
    assert "training goes on" in told[-1]
    assert mirror.trouble() == ""
    with server(tmp_path / "log", port) as back:
        back.make("bucket")
        until(lambda: f"runs/{RUN}/spool/rank-0.jsonl" in Objects(store).files("", deep=True))
        until(lambda: not list((paths.root / ".mirror").glob("trouble-*")))
        worker.kill()
        until(lambda: not mirrored(paths))


def test_a_run_that_ends_without_its_store_says_what_to_do(
    paths: RunPaths, away: tuple[str, int], monkeypatch: pytest.MonkeyPatch, worker: subprocess.Popen[bytes]
) -> None:
    paths.spec.write_text("kind: train")
    mirror = Mirror(paths, away[0])
    said = mirror.end(3.0)
    assert "s3://bucket/dlsys: " in said
    assert str(paths.root) in said
    assert f"dlsys runs sync {RUN}" in said
    monkeypatch.setattr(module, "_PATIENCE", 3.0)
    with pytest.raises(RunError, match="s3://bucket/dlsys"):
        mirror.leave()
    mirror.use(worker.pid, "driver")  # on this node: what the worker wrote is seen all the same
    mirror.leave()


def test_a_driver_begins_with_what_the_store_has(paths: RunPaths, store: str, tmp_path: Path) -> None:
    write_json(paths.owner, {"fence": 7})
    Mirror(paths, store)._files.push()
    elsewhere = RunPaths(tmp_path / "elsewhere" / "runs" / RUN)
    mirror = Mirror(elsewhere, store)
    mirror.begin()
    assert json.loads(elsewhere.owner.read_text()) == {"fence": 7}
    for path in (elsewhere.root / ".mirror" / "users").iterdir():
        path.unlink()  # or the process would wait for this one's end
    until(lambda: not mirrored(elsewhere))


def test_without_a_store_nothing_is_done(paths: RunPaths) -> None:
    mirror = Mirror.of(paths)
    mirror.begin()
    mirror.exchange()
    mirror.join(paths, 0)
    mirror.leave()
    assert (mirror.end(1.0), mirror.trouble()) == ("", "")
    assert not (paths.root / ".mirror").exists()
    code = "import sys, dlsys.jobs.mirror.node, dlsys.jobs.launch.beacon; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0, "Arrow is not imported"


def test_a_file_with_a_password_is_refused(paths: RunPaths) -> None:
    paths.source.write_text("tracking: {uri: 'http://me:hunter2@host'}")
    with pytest.raises(UsageError, match="what looks like a secret") as caught:
        refuse_passwords(paths)
    assert "hunter2" not in str(caught.value)


def test_a_new_machine_finds_runs_and_their_logs(paths: RunPaths, store: str, tmp_path: Path) -> None:
    write_json(paths.record, {"run_id": RUN})
    write_json(paths.submission, {"id": RUN})
    (paths.logs / "driver.log").write_text("said")
    (paths.spool / "rank-0.jsonl").write_text('{"s":1}\n')
    paths.secrets.write_text("TOKEN=hunter2")
    Mirror(paths, store)._files.push()
    recall(store, tmp_path / "new")
    found = RunPaths(tmp_path / "new" / "runs" / RUN)
    assert (found.logs / "driver.log").read_text() == "said"
    assert found.submission.exists()
    assert not (found.spool / "rank-0.jsonl").exists(), "a restarted job fetches it"
    assert not found.secrets.exists()
    assert module.store_of(found) == store


def test_a_job_is_taken_only_when_the_store_has_it(paths: RunPaths, away: tuple[str, int]) -> None:
    job = Job(RUN, "script", "here", [], 1.0)
    paths.spec.write_text("kind: train")
    with pytest.raises(OSError, match="s3://bucket/dlsys"):
        Keeping(away[0], {}).begin(job)
    assert not paths_of(RUN).submission.exists()


def test_a_node_may_keep_its_copies_elsewhere(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Assignment(str(home / "runs" / RUN), job(), "", "", 1, 1, store="s3://b/x")
    trial = Assignment(
        str(RunPaths(home / "runs" / RUN).trial(3).root),
        job(),
        "",
        "",
        1,
        1,
        owner=run.root,
        store="s3://b/x",
    )
    assert run.here() == run
    monkeypatch.setenv("DLSYS_NODE_HOME", str(tmp_path / "disk"))
    assert run.here().root == str(tmp_path / "disk" / "runs" / RUN)
    assert trial.here().owner == run.here().root
    assert trial.here().root == f"{run.here().root}/trials/{RUN}.00003"
    assert Assignment(run.root, job(), "", "", 1, 1).here().root == run.root, "where nodes share the folder"
