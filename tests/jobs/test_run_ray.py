"""`dlsys run` with two workers: Ray Train, embedded and attached, and workers that die."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import assert_equal
from runner import OURS, Folder

from dlsys.jobs.launch.auth import ensure_token
from dlsys.paths import read_json

pytestmark = pytest.mark.ray

TWO = ("resources.workers=2", "strategy.name=ddp")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """An uninterrupted run of two workers."""
    folder = Folder(tmp_path_factory.mktemp("whole"))
    done = folder.dlsys("run", "job.yaml", "--json", *TWO)
    assert done.code == 0, done.err
    assert json.loads(done.out)["attempts"] == 1
    # Nothing of Ray's, torch's or MLflow's own talk reaches the terminal.
    for line in done.err.splitlines():
        assert line.startswith(OURS), line
    folder.assert_alone()
    return folder


def test_two_workers_are_tracked_as_one_run(whole: Folder) -> None:
    (run,) = whole.mlflow_runs()
    assert run.info.status == "FINISHED"
    for rank in (0, 1):
        assert run.data.metrics[f"system/rank{rank}/peak_memory_mb"] > 100
    assert run.data.metrics["perf/sent_bytes_per_step"] > 0
    logs = {item.path for item in whole.store().client.list_artifacts(run.info.run_id, "logs")}
    assert {"logs/rank-0.log", "logs/rank-1.log"} <= logs


def test_ray_trains_own_launcher_computes_the_same(whole: Folder, folder: Folder) -> None:
    done = folder.dlsys("run", "job.yaml", *TWO, "resources.launcher=train")
    assert done.code == 0, done.err
    assert_equal(whole.weights(), folder.weights())
    for line in (done.out + done.err).splitlines():
        assert "ray" not in line.lower(), line
    for run in (whole.run, folder.run):
        told = json.loads((run.places / "attempt-1.json").read_text())
        assert [worker["rank"] for worker in told["workers"]] == [0, 1]
        assert {worker["node"] for worker in told["workers"]} == set(told["nodes"])
        assert told["until"] > told["began"]
        assert told["currency"] == "", "no price is made up"
    folder.assert_alone()


def test_an_address_where_nothing_answers(folder: Folder) -> None:
    done = folder.dlsys("run", "job.yaml", *TWO, "--address", "127.0.0.1:9")
    assert done.code == 1
    assert "no Ray cluster answers at 127.0.0.1:9" in done.err
    assert "gcs_client" not in done.err


@pytest.mark.parametrize("mode", ["token", "disabled"])
def test_attached_to_a_running_ray(mode: str, whole: Folder, folder: Folder) -> None:
    """The cluster stays, whether it asks for the token or not; the run is the same."""
    with running_ray(folder.path, RAY_AUTH_MODE=mode) as (address, process):
        done = folder.dlsys("run", "job.yaml", *TWO, "--address", address)
        assert done.code == 0, done.err
        assert process.poll() is None
    assert "gcs_client" not in done.err
    assert_equal(whole.weights(), folder.weights())
    folder.assert_alone(30)


@contextmanager
def running_ray(folder: Path, **environment: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A Ray of this test alone."""
    ensure_token()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus=2"]
    command += [f"--port={address.partition(':')[2]}", "--dashboard-agent-listen-port=0"]
    # Ray's sockets need a short path.
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as short:
        with open(folder / "ray.log", "wb") as log:
            process = subprocess.Popen(
                [*command, "--include-dashboard=false", f"--temp-dir={short}"],
                stdout=log,
                stderr=log,
                env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", **environment},
            )
        try:
            deadline = time.monotonic() + 60
            while b"Ray runtime started" not in (folder / "ray.log").read_bytes():
                assert process.poll() is None, (folder / "ray.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield address, process
        finally:
            process.terminate()
            process.wait(60)


def test_a_killed_worker_costs_nothing_but_time(whole: Folder, folder: Folder) -> None:
    """kill -9 of rank 1 in the middle of an epoch: the same weights, one run, each step once."""
    done = folder.dlsys("run", "job.yaml", "--json", *TWO, FAULT="kill", FAULT_STEP="33", FAULT_RANK="1")
    assert done.code == 0, done.err
    assert json.loads(done.out)["attempts"] == 2
    assert "attempt 2 of 4 starts from the last checkpoint" in done.err
    assert "continues from the checkpoint of step 30" in done.err
    assert_equal(whole.weights(), folder.weights())
    assert folder.history("train/loss") == whole.history("train/loss")
    assert set(folder.history("train/loss").values()) == {1}
    folder.assert_alone()


def test_a_users_error_on_one_rank_is_not_retried(folder: Folder) -> None:
    done = folder.dlsys("run", "job.yaml", *TWO, FAULT="raise", FAULT_STEP="20", FAULT_RANK="1")
    assert done.code == 1
    assert f'File "{folder.path}/mine.py", line' in done.err
    assert "rank 1: your code raised KeyError: 'oops'" in done.err
    assert "attempt 2" not in done.err
    (run,) = folder.mlflow_runs()
    assert run.info.status == "FAILED"
    folder.assert_alone()


def test_a_hanging_rank_is_named_and_every_stack_is_kept(folder: Folder) -> None:
    overrides = ("failure.hang_after=4", "failure.retries=0")
    done = folder.dlsys("run", "job.yaml", *TWO, *overrides, FAULT="hang", FAULT_STEP="20", FAULT_RANK="1")
    assert done.code == 1
    assert "rank 1 is in step 20, at" in done.err
    assert "mine.py" in done.err
    told = [read_json(path) for path in sorted(folder.run.stacks.glob("attempt-*/rank-*.json"))]
    assert [(value["rank"], value["waits"]) for value in told] == [(0, True), (1, False)]
    folder.assert_alone()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_ends_all_workers(number: int, code: int, folder: Folder) -> None:
    process = folder.start("run", "job.yaml", *TWO, "checkpoint.every='1000 steps'", STEP_SECONDS="0.05")
    folder.wait_for(lambda: folder.step() >= 8)
    process.send_signal(number)
    done = folder.finish(process)
    assert done.code == code
    assert done.seconds < 10
    (run,) = folder.mlflow_runs()
    assert run.info.status == "KILLED"
    folder.assert_alone()
    assert list(folder.run.checkpoints.glob("step-*")), "a last checkpoint was saved"


@pytest.mark.usefixtures("interpreters")
def test_a_killed_driver_leaves_nothing_and_resumes(whole: Folder, folder: Folder) -> None:
    process = folder.start("run", "job.yaml", *TWO, STEP_SECONDS="0.03")
    folder.wait_for(lambda: folder.step() >= 33)
    process.kill()
    folder.finish(process)
    done = folder.dlsys("run", "--resume", "mine")
    assert done.code == 0, done.err
    assert_equal(whole.weights(), folder.weights())
    assert folder.history("train/loss") == whole.history("train/loss")
    (run,) = folder.mlflow_runs()
    assert run.info.status == "FINISHED"
    folder.assert_alone()
