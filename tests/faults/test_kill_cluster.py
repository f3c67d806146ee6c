"""Every part of a cluster dies while a job runs: the job ends with the same weights, each step once.

The times go to the file that DLSYS_TIMES names, if it does: docs/clusters.md has a table of them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from cluster_fixture import Cluster, local_cluster
from harness import assert_equal

from dlsys import processes
from dlsys.paths import read_json
from dlsys.track.store import Store
from dlsys.train.checkpoint import CheckpointStore

pytestmark = [pytest.mark.faults, pytest.mark.ray]

JOB = (
    *("quickstart", "stop.epochs=60", "expect={}", "tracking.log_every=1"),
    *("checkpoint.every=20 steps", "evaluate=20 epochs"),
)
FIRST = 100


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with local_cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture(scope="module")
def whole(cluster: Cluster) -> str:
    """A run that nothing happened to."""
    job_id = submit(cluster)
    cluster.wait_for(job_id, ["SUCCEEDED"], 120)
    return job_id


def submit(cluster: Cluster) -> str:
    return cluster.dlsys("submit", "-d", *JOB).stdout.strip()


def step(cluster: Cluster, job_id: str) -> int:
    """The last step that was recorded."""
    spool = cluster.run(job_id).spool / "rank-0.jsonl"
    try:
        lines = spool.read_text().splitlines()[-20:]
    except OSError:
        return 0
    found = 0
    for line in lines:
        try:
            found = max(found, json.loads(line).get("s", 0))
        except ValueError:
            continue
    return found


def process(cluster: Cluster, fits: Callable[[str], bool]) -> psutil.Process:
    found = []
    for each in cluster.marked():
        try:
            if fits(" ".join(each.cmdline())):
                found.append(each)
        except psutil.Error:
            continue
    return found[0]


def raylet(cluster: Cluster, node: str) -> psutil.Process:
    (pid,) = [n["raylet"] for n in cluster.paths.read_state()["nodes"] if n["name"] == node]
    return psutil.Process(pid)


def begin(cluster: Cluster) -> str:
    job_id = submit(cluster)
    cluster.until(lambda: step(cluster, job_id) >= FIRST, 60)
    return job_id


def finish(cluster: Cluster, job_id: str, whole: str, name: str, patience: float = 45) -> None:
    """The job stands still for `patience` at most, and comes to the same end as the unhurt run."""
    spool = cluster.run(job_id).spool / "rank-0.jsonl"
    size, moved, longest = 0, time.monotonic(), 0.0

    def ended() -> bool:
        nonlocal size, moved, longest
        if spool.stat().st_size != size:
            longest = max(longest, time.monotonic() - moved)
            size, moved = spool.stat().st_size, time.monotonic()
        return state(cluster, job_id) in ("SUCCEEDED", "FAILED")

    cluster.until(ended, 180)
    note(name, "stood still", longest)
    assert state(cluster, job_id) == "SUCCEEDED"
    assert longest <= patience
    assert_equal(weights(cluster, whole), weights(cluster, job_id))
    store = Store(f"sqlite:///{cluster.folder}/.dlsys/mlflow.db")
    cluster.until(lambda: store.runs(prefix=job_id)[0].info.status == "FINISHED", 60)
    (run,) = store.runs(prefix=job_id)
    steps = Counter(p.step for p in store.client.get_metric_history(run.info.run_id, "train/loss"))
    assert set(steps) == set(range(1, 1 + max(steps)))
    assert set(steps.values()) == {1}


def state(cluster: Cluster, job_id: str) -> str:
    return (read_json(cluster.run(job_id).submission) or {})["state"]


def weights(cluster: Cluster, job_id: str) -> dict:
    saved = CheckpointStore(cluster.run(job_id).checkpoints).latest()
    assert saved is not None
    return saved.model


def note(name: str, what: str, seconds: float) -> None:
    if path := os.environ.get("DLSYS_TIMES"):
        with open(path, "a") as file:
            file.write(f"{name}\t{what}\t{seconds:.1f}\n")


PARTS: dict[str, Callable[[Cluster], psutil.Process]] = {
    "worker": lambda c: process(c, lambda line: "_Worker" in line),
    "job supervisor": lambda c: process(c, lambda line: "JobSupervisor" in line),
    "driver": lambda c: process(c, lambda line: "dlsys.cli.main run" in line),
    "control plane (GCS)": lambda c: process(c, lambda line: "gcs_server" in line.split(" ")[0]),
    "raylet of the second node": lambda c: raylet(c, "worker-0"),
    "raylet of the head": lambda c: raylet(c, "head-0"),
    "queue of jobs": lambda c: process(c, lambda line: "dlsys.jobs.desk" in line),
    "keeper": lambda c: process(c, lambda line: "dlsys.cluster.keeper" in line),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_killed(part: str, cluster: Cluster, whole: str) -> None:
    job_id = begin(cluster)
    PARTS[part](cluster).kill()
    finish(cluster, job_id, whole, f"`kill -9` of the {part}")
    cluster.dlsys("cluster", "up", "cluster.yaml", timeout=200)
    assert cluster.dlsys("cluster", "doctor").returncode == 0


@pytest.mark.parametrize("seconds", [20, 60])
def test_the_control_plane_is_away_for_some_time(seconds: int, cluster: Cluster) -> None:
    """Training does not need it; the job is not taken for failed, and ends as it should."""
    job_id = cluster.dlsys("submit", "-d", *JOB, "stop={epochs: 100000, time: 100 s}").stdout.strip()
    cluster.until(lambda: step(cluster, job_id) >= FIRST, 60)
    keeper = PARTS["keeper"](cluster)
    keeper.send_signal(signal.SIGSTOP)
    try:
        PARTS["control plane (GCS)"](cluster).kill()
        time.sleep(seconds)
        assert state(cluster, job_id) == "RUNNING"
    finally:
        keeper.send_signal(signal.SIGCONT)
    ended = cluster.wait_for(job_id, ["SUCCEEDED", "FAILED"], 180)
    assert (ended["state"], ended["attempt"]) == ("SUCCEEDED", 1)
    assert cluster.log(job_id).count("attempt ") == 0, "the workers of the first attempt came to the end"


def test_a_raylet_hangs(cluster: Cluster, whole: str) -> None:
    """The keeper ends the node and starts it again; Ray takes a minute or more to give it up."""
    job_id = begin(cluster)
    hung = raylet(cluster, "worker-0")
    hung.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    cluster.until(lambda: not hung.is_running(), 90)
    note("`kill -STOP` of the raylet of the second node", "noticed", time.monotonic() - began)
    cluster.wait_for(job_id, ["SUCCEEDED"], 120)
    assert_equal(weights(cluster, whole), weights(cluster, job_id))
    cluster.until(lambda: len(alive(cluster)) == 2, 30)


def alive(cluster: Cluster) -> list[str]:
    status = json.loads(cluster.dlsys("cluster", "status", "--json").stdout)
    return [node["name"] for node in status["nodes"] if node["alive"]]


def test_the_client_is_killed(cluster: Cluster, whole: str) -> None:
    client = subprocess.Popen(
        [sys.executable, "-P", "-m", "dlsys.cli.main", "submit", *JOB],
        cwd=cluster.folder,
        env=cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    job_id = client.stdout.readline().strip()
    client.kill()
    client.communicate()
    cluster.wait_for(job_id, ["SUCCEEDED"], 120)
    assert_equal(weights(cluster, whole), weights(cluster, job_id))


def test_a_job_that_ignores_sigterm_ends_and_leaves_no_orphan(cluster: Cluster) -> None:
    stubborn = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    job_id = cluster.dlsys("submit", "-d", "--", sys.executable, "-c", stubborn).stdout.strip()
    cluster.until(lambda: "deaf" in (cluster.log(job_id) if log(cluster, job_id).exists() else ""), 30)
    began = time.monotonic()
    cluster.dlsys("jobs", "stop", job_id)
    cluster.wait_for(job_id, ["STOPPED"], 40)
    note("`jobs stop` of a job that ignores SIGTERM", "ended", time.monotonic() - began)
    assert not [p for p in cluster.marked() if "deaf" in " ".join(p.cmdline())]


def log(cluster: Cluster, job_id: str) -> Path:
    return cluster.run(job_id).logs / "driver.log"


def test_the_head_is_lost_for_good_and_jobs_go_on_with_a_new_cluster(tmp_path: Path) -> None:
    with local_cluster(tmp_path) as cluster:
        job_id = begin(cluster)
        database = tmp_path / ".dlsys" / "mlflow.db"
        cluster.until(lambda: database.exists() and bool(Store(f"sqlite:///{database}").runs(prefix=job_id)))
        processes.kill(cluster.marked())
        assert cluster.dlsys("cluster", "doctor", check=False).returncode == 1
        found = json.loads(cluster.dlsys("runs", "show", job_id, "--json").stdout)
        assert found["tags"]["dlsys.cluster"] == cluster.name, "MLflow knows the job"
        assert "epoch" in cluster.dlsys("jobs", "logs", job_id, check=False).stdout + cluster.log(job_id)
        began = time.monotonic()
        cluster.dlsys("cluster", "up", "cluster.yaml", timeout=200)
        note("the whole cluster", "up again, from `dlsys cluster up` on", time.monotonic() - began)
        cluster.wait_for(job_id, ["SUCCEEDED"], 120)
        assert read_json(cluster.run(job_id).outcome)["status"] == "FINISHED"


def test_an_elastic_run_goes_on_with_the_node_that_is_left(tmp_path: Path) -> None:
    with local_cluster(tmp_path) as cluster:
        job_id = cluster.dlsys(
            "submit", "-d", *JOB, "stop.epochs=400", "failure.elastic={min: 1, max: 2}"
        ).stdout.strip()
        cluster.until(lambda: step(cluster, job_id) >= FIRST, 60)
        keeper = process(cluster, lambda line: "dlsys.cluster.keeper" in line)
        keeper.send_signal(signal.SIGSTOP)  # nobody starts the node again
        raylet(cluster, "worker-0").kill()
        began = time.monotonic()
        cluster.until(lambda: "goes on with 1 worker" in cluster.log(job_id), 60)
        reached = step(cluster, job_id)
        cluster.until(lambda: step(cluster, job_id) > reached, 60)
        note("a node lost for good, `elastic`", "back at work", time.monotonic() - began)
        keeper.send_signal(signal.SIGCONT)
        cluster.until(lambda: "goes on with 2 workers" in cluster.log(job_id), 90)
        cluster.dlsys("jobs", "stop", job_id)
        cluster.wait_for(job_id, ["STOPPED"])
