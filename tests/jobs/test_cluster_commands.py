"""Commands, sweeps and users' own code on a cluster of two nodes: real Ray nodes, real kills."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from cluster_fixture import Cluster, local_cluster
from scripts import TRAIN

from dlsys.jobs.sweep import ledger_of
from dlsys.track.store import Store

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with local_cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


_REDUCE = """
import os, mlflow, torch
from torch import distributed

distributed.init_process_group("gloo", init_method="env://")
total = torch.tensor([10.0 ** distributed.get_rank()])
distributed.all_reduce(total)
print(f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']}, sum {total.item():g},",
      f"node {os.environ['NODE_RANK']} {os.environ['GROUP_RANK']}, local {os.environ['LOCAL_RANK']}",
      f"of {os.environ['LOCAL_WORLD_SIZE']}, {os.environ['TORCHELASTIC_RUN_ID']}",
      open("beside.txt").read())
mlflow.log_metric(f"sum/{os.environ['RANK']}", total.item(), step=4)
distributed.destroy_process_group()
"""


def test_torch_finds_its_ranks_on_both_nodes(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "reduce.py").write_text(_REDUCE)
    (tmp_path / "beside.txt").write_text("packed")
    options = ("--workers", "2", "--experiment", "sums", "failure.retries=1", "--env", "SEED=7")
    done = cluster.dlsys("submit", *options, "--", "python", "reduce.py", cwd=tmp_path)
    job = done.stdout.split()[0]
    said = "rank {0} of 2, sum 11, node {0} {0}, local 0 of 1, " + job + " packed"
    assert done.stdout == f"{job}\n{said.format(0)}\n", "no library says a word"
    assert cluster.run(job).log(1).read_text() == f"{said.format(1)}\n"
    assert cluster.dlsys("jobs", "logs", job, "--rank", "0").stdout == f"{said.format(0)}\n"
    shown = json.loads(cluster.dlsys("runs", "show", job, "--json").stdout)
    assert shown["metrics"] == {"sum/0": 11, "sum/1": 11}
    assert (shown["params"]["env.SEED"], shown["tags"]["dlsys.cluster"]) == ("7", "test-two")
    assert f"{job}  FINISHED" in cluster.dlsys("runs", "list").stdout


def test_a_file_is_one_run_that_goes_on_from_its_own_checkpoint(cluster: Cluster, tmp_path: Path) -> None:
    """A rank is killed; each step is in MLflow once, with both ranks' logs."""
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / "train.py").write_text(TRAIN)
    (tmp_path / "exp" / "script.yaml").write_text(_FILE)
    done = cluster.dlsys("submit", "exp/script.yaml", "failure.retries=1", cwd=tmp_path)
    job = done.stdout.split()[0]
    assert "was ended by SIGKILL; attempt 2 of 2 starts all workers anew\n" in done.stdout
    assert done.stdout.endswith("goes on from step 3, restart 1\n")
    store = Store(f"sqlite:///{cluster.folder}/.dlsys/mlflow.db")
    (run,) = store.runs(prefix=job)
    cluster.until(lambda: store.client.get_run(run.info.run_id).info.status == "FINISHED")
    points = store.client.get_metric_history(run.info.run_id, "loss")
    assert sorted(point.step for point in points) == [*range(6)]
    logs = {item.path for item in store.client.list_artifacts(run.info.run_id, "logs")}
    assert {"logs/rank-0.log", "logs/rank-1.log"} <= logs
    assert all(cluster.run(each.info.run_name).root.is_dir() for each in everything(store))


_FILE = """
kind: script
name: own
command: [python, train.py, die]
resources: {workers: 2, cpus: 0.5}
expect: {loss: "< 100"}
"""


def everything(store: Store) -> list:
    """Every run in the store, also those that are not dlsys's."""
    found = store.client.search_experiments()
    return store.client.search_runs([experiment.experiment_id for experiment in found])


def test_torch_alone(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "alone.py").write_text(
        "from torch import distributed\n"
        "distributed.init_process_group('gloo')\n"
        "print('world', distributed.get_world_size())\n"
    )
    assert "world 1" in cluster.dlsys("submit", "--", "python", "alone.py", cwd=tmp_path).stdout


# Rank 1 does what the first word says; each rank has a child with a session of its own.
_RANKS = """
import os, signal, subprocess, sys, time

child = subprocess.Popen(["sleep", "1000"], start_new_session=True)

def asked(*args):
    child.terminate()
    print("asked, child", child.wait(), flush=True)
    sys.exit(0)

signal.signal(signal.SIGTERM, asked)
print("ready", flush=True)
time.sleep(1)
if os.environ["RANK"] == "1" and sys.argv[1] == "exits":
    sys.exit(7)
if os.environ["RANK"] == "1" and sys.argv[1] == "is-killed":
    os.kill(os.getpid(), signal.SIGKILL)
while True:
    time.sleep(0.1)
"""
_OURS = ("dlsys.cli.main run", "ray::_Rank", "launch.guard", "ranks.py", "sleep 1000")


class Ranks:
    """A running command of two ranks.

    Args:
        folder: its working folder, which nothing else uses.
        word: what rank 1 does.
        cpus: of each rank.
    """

    def __init__(self, cluster: Cluster, folder: Path, word: str, cpus: str = "0.1") -> None:
        self._cluster = cluster
        (folder / "ranks.py").write_text(_RANKS)
        (folder / "word.txt").write_text(word)
        words = ("submit", "-d", "--json", "--workers", "2", "--cpus", cpus, "--", "python", "ranks.py")
        told = json.loads(cluster.dlsys(*words, word, cwd=folder).stdout)
        self.job, self._unpacked = told["id"], told["package"].removesuffix(".zip")

    def log(self, rank: int) -> str:
        path = self._cluster.run(self.job).log(rank)
        return path.read_text() if path.exists() else ""

    def ready(self) -> None:
        self._cluster.until(lambda: all("ready" in self.log(rank) for rank in (0, 1)))

    def family(self, *words: str) -> list[psutil.Process]:
        """Driver, actors, guards, ranks and their children, or some of them: all work in one folder."""
        found = []
        for process in self._cluster.marked():
            with suppress(psutil.Error):
                line = " ".join(process.cmdline())
                if Path(process.cwd()).name == self._unpacked and any(w in line for w in words or _OURS):
                    found.append(process)
        return found

    def gone(self) -> None:
        self._cluster.until(lambda: not self.family(), told=lambda: f"there are {self.family()}")


@pytest.fixture(scope="module")
def ranks(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ranks]:
    """One job for each of the tests below: they start at the same time."""
    words = ("exits", "is-killed", "is-stopped", "loses-driver", "loses-actor")
    return {word: Ranks(cluster, tmp_path_factory.mktemp(word), word) for word in words}


@pytest.mark.parametrize(
    ("word", "code", "said"),
    [("exits", 7, "ended with exit code 7"), ("is-killed", 137, "was ended by SIGKILL")],
)
def test_a_failing_rank_ends_the_others(
    cluster: Cluster, ranks: dict[str, Ranks], word: str, code: int, said: str
) -> None:
    found = cluster.wait_for(ranks[word].job, ("FAILED",))
    assert found["exit_code"] == code
    assert found["reason"].startswith("rank 1 on ")
    assert found["reason"].endswith(said)
    assert "asked, child -15" in ranks[word].log(0)
    ranks[word].gone()


def test_stopped_every_process_may_still_work(cluster: Cluster, ranks: dict[str, Ranks]) -> None:
    stopped = ranks["is-stopped"]
    stopped.ready()
    cluster.dlsys("jobs", "stop", stopped.job)
    cluster.wait_for(stopped.job, ("STOPPED",))
    for rank in (0, 1):
        assert "asked, child -15" in stopped.log(rank)
    stopped.gone()


def test_a_killed_driver_leaves_nothing(cluster: Cluster, ranks: dict[str, Ranks]) -> None:
    left = ranks["loses-driver"]
    left.ready()
    (driver,) = left.family("dlsys.cli.main run")
    driver.kill()
    cluster.wait_for(left.job, ("FAILED",))
    left.gone()


def test_a_killed_actor_ends_its_rank_and_the_others(cluster: Cluster, ranks: dict[str, Ranks]) -> None:
    left = ranks["loses-actor"]
    left.ready()
    actor, _ = left.family("ray::_Rank")
    actor.kill()
    assert "was lost: its worker or its node died" in cluster.wait_for(left.job, ("FAILED",))["reason"]
    assert "asked, child -15" in left.log(0) + left.log(1)
    left.gone()


_MODEL = """
import os, time

from torch import nn

from dlsys.zoo.workload import Loss, Workload


class MyWorkload(Workload):
    metrics = {"accuracy": "max"}

    def build(self):
        print("node", os.environ["DLSYS_NODE"].split()[0], "module", __file__, flush=True)
        return nn.Linear(2, 2)

    def forward(self, model, batch, carry):
        return model(batch["features"].float()), None

    def objective(self, outputs, batch):
        time.sleep(0.03)
        return Loss(nn.functional.cross_entropy(outputs, batch["label"]))
"""
_JOB = """
kind: train
name: mine
workload: my_model:MyWorkload
data: {source: csv, path: ../rows/some.csv, target: kind}
batch_size: 8
optimizer: {name: sgd, lr: 0.1}
strategy: {name: ddp}
resources: {workers: 2, cpus: 1}
stop: {epochs: 2}
"""
_SWEEP = """
kind: sweep
name: mine-sweep
job: job.yaml
overrides: {resources.workers: 1, strategy: {name: single}, stop.epochs: 10}
metric: valid/loss
mode: min
space: {optimizer.lr: {log_uniform: [0.01, 1.0]}}
searcher: {name: random}
scheduler: {name: fifo}
trials: 4
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's folder: a module, rows in a file, and what is trained, each in its place."""
    for name in ("files", "rows"):
        (tmp_path / name).mkdir()
    (tmp_path / "my_model.py").write_text(_MODEL)
    rows = [f"{i % 7},{i * 3 % 5},{'high' if i % 7 > 3 else 'low'}" for i in range(60)]
    (tmp_path / "rows" / "some.csv").write_text("\n".join(["a,b,kind", *rows]))
    (tmp_path / "files" / "job.yaml").write_text(_JOB)
    (tmp_path / "files" / "sweep.yaml").write_text(_SWEEP)
    return tmp_path


def test_own_code_and_data_are_found_on_both_nodes(cluster: Cluster, own: Path) -> None:
    job = cluster.dlsys("submit", "files/job.yaml", cwd=own).stdout.split()[0]
    told = "".join(cluster.run(job).log(rank).read_text() for rank in (0, 1))
    for node in ("head-0", "worker-0"):
        line = next(line for line in told.splitlines() if line.startswith(f"node {node} "))
        # Its own node's copy: Ray's sessions are below a folder named like the node.
        assert f"/{node}/" in line.partition("module ")[2]


def test_a_sweep_that_pauses_is_stopped_and_tried_again_goes_on(cluster: Cluster, own: Path) -> None:
    sweep = cluster.dlsys("submit", "-d", "files/sweep.yaml", cwd=own).stdout.strip()
    paths = cluster.run(sweep)

    def reports() -> list[str]:
        return [line for line in ledger_of(paths).read_text().splitlines() if '"report"' in line]

    cluster.until(lambda: bool(reports()))
    other = cluster.dlsys("submit", "-d", "--priority", "5", "--", "sleep", "1", cwd=own).stdout.strip()
    cluster.wait_for(other, ("SUCCEEDED",))
    before = reports()
    cluster.wait_for(sweep, ("RUNNING",))
    assert cluster.job(sweep)["attempt"] == 2
    cluster.dlsys("jobs", "stop", sweep)
    cluster.wait_for(sweep, ("STOPPED",))
    assert len(reports()) < 4, "the sweep ended before it could be stopped"
    cluster.dlsys("jobs", "retry", sweep)
    cluster.wait_for(sweep, ("SUCCEEDED",))
    assert reports()[: len(before)] == before
    assert sorted(json.loads(line)["trial"] for line in reports()) == [0, 1, 2, 3]
    assert {json.loads(line)["epoch"] for line in reports()} == {10}
    # The writer may still be on its way.
    store = Store(f"sqlite:///{cluster.folder}/.dlsys/mlflow.db")
    cluster.until(lambda: len(store.runs(prefix=sweep)) == 5)


def test_a_killed_node_leaves_nothing(cluster: Cluster, tmp_path: Path) -> None:
    ranks = Ranks(cluster, tmp_path, "loses-node", cpus="1")
    ranks.ready()
    _, worker = cluster.paths.read_state()["nodes"]
    psutil.Process(worker["raylet"]).kill()
    cluster.wait_for(ranks.job, ("FAILED",))
    ranks.gone()
