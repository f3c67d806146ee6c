"""A local cluster whose runs are in an object store: its two nodes share nothing else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_fixture import TWO_NODES, Cluster, local_cluster
from object_store import Server
from runner import JOB, MODULE

from dlsys.jobs.mirror.objects import Objects
from dlsys.paths import RunPaths, read_json
from dlsys.track.store import Store

pytestmark = [pytest.mark.ray, pytest.mark.slow]

_TWO = ("resources.workers=2", "resources.cpus=1", "strategy.name=ddp")
_SECRET = "hf-canary-6b1f"
# The machine may be a slow one.
_LONG = 400.0


@pytest.fixture(scope="module")
def address(s3: Server) -> str:
    return s3.make("cluster")


@pytest.fixture(scope="module")
def cluster(s3: Server, address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "mine.py").write_text(MODULE)
    (folder / "job.yaml").write_text(JOB)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment.items():
            patch.setenv(name, value)
        patch.setenv("STEP_SECONDS", "0.1")
        with local_cluster(folder, f"{TWO_NODES}storage: {address}\n") as made:
            yield made


@pytest.fixture(autouse=True)
def rights(s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)


def stored(address: str, job_id: str) -> set[str]:
    found = Objects(address).files(f"runs/{job_id}", deep=True)
    return {path.removeprefix(f"runs/{job_id}/") for path in found}


def test_a_job_stops_goes_on_and_outlives_its_cluster(cluster: Cluster, address: str) -> None:
    job_id = cluster.dlsys("submit", "-d", "job.yaml", *_TWO, "stop.epochs=10").stdout.strip()
    cluster.until(
        lambda: any(path.endswith("manifest.json") for path in stored(address, job_id)), _LONG, lambda: job_id
    )
    cluster.dlsys("jobs", "stop", job_id)
    cluster.wait_for(job_id, ["STOPPED"], _LONG)
    stopped_at = read_json(cluster.run(job_id).outcome)["step"]
    assert f"checkpoints/step-{stopped_at:010d}/manifest.json" in stored(address, job_id)
    cluster.dlsys("jobs", "retry", job_id)
    cluster.wait_for(job_id, ["SUCCEEDED"], _LONG)
    assert f"continues from the checkpoint of step {stopped_at}" in cluster.log(job_id)

    places = read_json(cluster.run(job_id).places / "attempt-1.json")
    ranks = {places["nodes"][worker["node"]]["name"]: worker["rank"] for worker in places["workers"]}
    assert ranks.keys() == {"head-0", "worker-0"}
    elsewhere = RunPaths(cluster.paths.root / "nodes" / "worker-0" / "runs" / job_id)
    spools = {path.name for path in elsewhere.spool.iterdir()}
    assert spools == {f"rank-{ranks['worker-0']}.jsonl"}, "the second node has only what is its own"
    for node, run in (("head-0", cluster.run(job_id)), ("worker-0", elsewhere)):
        assert any(run.checkpoints.glob("step-*")) == (ranks[node] == 0), "only rank 0's node needs them"
    for rank in ranks.values():
        assert cluster.dlsys("jobs", "logs", job_id, "--rank", str(rank)).returncode == 0

    cluster.dlsys("runs", "sync", job_id)
    store = Store(f"sqlite:///{cluster.folder}/.dlsys/mlflow.db")
    (run,) = store.runs(prefix=job_id)
    points = store.client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted(point.step for point in points) == list(range(1, 10 * 23 + 1))
    assert store.client.get_metric_history(run.info.run_id, "system/rank1/busy_seconds")

    command = cluster.dlsys("submit", "--", "sh", "-c", "echo said by a command", check=False)
    assert "said by a command" in command.stdout
    assert command.returncode == 0, command.stderr

    (run,) = store.runs(prefix=command.stdout.split()[0])
    assert run.data.params["command"].startswith("sh -c ")
    refused = cluster.dlsys("submit", "failure.retries=1", "--", "true", check=False)
    assert refused.returncode == 2
    assert "failure.retries: must be 0 where runs are in an object store" in refused.stderr

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", _SECRET)
        words = ("--workers", "2", "--secret", "HF_TOKEN", "--", "sh", "-c", 'printf %s "$HF_TOKEN" | wc -c')
        secret = cluster.dlsys("submit", *words).stdout.splitlines()[0]
    said = [cluster.dlsys("jobs", "logs", secret, "--rank", rank).stdout.strip() for rank in ("0", "1")]
    assert said == [str(len(_SECRET))] * 2, "each node was told, though they share no file"
    objects = Objects(address)
    assert not [path for path in objects.files("", deep=True) if _SECRET.encode() in objects.read(path)]

    log = cluster.log(job_id)
    cluster.dlsys("cluster", "down", cluster.name, timeout=_LONG)
    shutil.rmtree(cluster.folder / ".dlsys")
    cluster.dlsys("cluster", "up", "cluster.yaml", timeout=_LONG)
    found = {job["id"]: job["state"] for job in json.loads(cluster.dlsys("jobs", "list", "--json").stdout)}
    assert found[job_id] == "SUCCEEDED"
    assert len(found) == 3
    assert cluster.dlsys("jobs", "logs", job_id).stdout == log
    assert cluster.dlsys("cluster", "doctor").stdout.count("BAD") == 0


def test_a_store_that_is_not_there_is_told_before_a_cluster_is_made(s3: Server, tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(f"{TWO_NODES}storage: s3://no-such-bucket/x\n")
    done = Cluster(tmp_path, "test-two").dlsys("cluster", "up", "cluster.yaml", check=False)
    assert done.returncode == 2
    assert "s3://no-such-bucket/x" in done.stderr
    assert "bucket does not exist" in done.stderr
    assert not os.path.exists(tmp_path / ".dlsys" / "clusters")
