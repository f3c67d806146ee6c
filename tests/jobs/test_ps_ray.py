"""`dlsys run` with parameter servers on Ray, and servers that die."""

from __future__ import annotations

import json

import psutil
import pytest
from harness import assert_equal
from runner import OURS, Done, Folder

pytestmark = pytest.mark.ray

TWO = ("resources.workers=2",)


def servers_of(folder: Folder) -> list[psutil.Process]:
    """The actors that host servers, as Ray names their processes."""
    found = []
    for process in folder.processes():
        try:
            if "_Host" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def run_and_kill_a_server(folder: Folder, *overrides: str) -> Done:
    """kill -9 of one server in the middle of the second epoch."""
    process = folder.start("run", "job.yaml", "--json", *overrides, STEP_SECONDS="0.03")
    folder.wait_for(lambda: folder.step() >= 33)
    servers_of(folder)[0].kill()
    return folder.finish(process)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """An uninterrupted run of two workers and two servers."""
    folder = Folder(tmp_path_factory.mktemp("whole"))
    done = folder.dlsys("run", "job.yaml", "--json", *TWO, "strategy={name: ps, servers: 2}")
    assert done.code == 0, done.err
    assert json.loads(done.out)["attempts"] == 1
    # Servers are as quiet as workers.
    for line in done.err.splitlines():
        assert line.startswith(OURS), line
    assert [log.read_text() for log in folder.run.logs.glob("server-*.log")] == ["", ""]
    folder.assert_alone()
    return folder


def test_a_killed_server_costs_nothing_but_time(whole: Folder, folder: Folder) -> None:
    """The run goes back to its checkpoint: the same weights bit for bit, and each step once."""
    done = run_and_kill_a_server(folder, *TWO, "strategy={name: ps, servers: 2}")
    assert done.code == 0, done.err
    assert json.loads(done.out)["attempts"] == 2
    assert "lost the parameter server at" in done.err
    assert "attempt 2 of 4 starts from the last checkpoint" in done.err
    assert_equal(whole.weights(), folder.weights())
    assert folder.history("train/loss") == whole.history("train/loss")
    folder.assert_alone()


def test_an_asynchronous_run_outlives_its_server(folder: Folder) -> None:
    """Ray brings the server back from its snapshot; workers find it and go on."""
    done = run_and_kill_a_server(folder, *TWO, "strategy={name: ps, mode: async, snapshot: 10}")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["attempts"] == 1
    assert told["step"] == 69
    assert told["metrics"]["valid/accuracy"] > 0.7
    assert not (folder.run.root / "servers").exists()
    folder.assert_alone()


def test_one_worker_has_servers_too(folder: Folder) -> None:
    done = folder.dlsys("run", "job.yaml", "--json", "strategy.name=ps", "stop={steps: 10}")
    assert done.code == 0, done.err
    assert json.loads(done.out)["step"] == 10
    (run,) = folder.mlflow_runs()
    assert run.data.metrics["ps/received_bytes_per_step"] > 0
    folder.assert_alone()
