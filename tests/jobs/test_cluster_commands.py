"""Commands, sweeps and users' own code on a cluster of two nodes: real Ray nodes, real kills."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from cluster_fixture import Cluster, local_cluster

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with local_cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


_REDUCE = """
import os, torch
from torch import distributed

distributed.init_process_group("gloo", init_method="env://")
total = torch.tensor([10.0 ** distributed.get_rank()])
distributed.all_reduce(total)
print(f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']}, sum {total.item():g},",
      f"node {os.environ['NODE_RANK']} {os.environ['GROUP_RANK']}, local {os.environ['LOCAL_RANK']}",
      f"of {os.environ['LOCAL_WORLD_SIZE']}, {os.environ['TORCHELASTIC_RUN_ID']}",
      open("beside.txt").read())
distributed.destroy_process_group()
"""


def test_torch_finds_its_ranks_on_both_nodes(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "reduce.py").write_text(_REDUCE)
    (tmp_path / "beside.txt").write_text("packed")
    done = cluster.dlsys("submit", "--workers", "2", "--", "python", "reduce.py", cwd=tmp_path)
    job = done.stdout.split()[0]
    said = "rank {0} of 2, sum 11, node {0} {0}, local 0 of 1, " + job + " packed"
    assert said.format(0) in done.stdout
    assert said.format(1) not in done.stdout
    assert said.format(1) in cluster.run(job).log(1).read_text()
    assert said.format(0) in cluster.dlsys("jobs", "logs", job, "--rank", "0").stdout


def test_torch_alone(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "alone.py").write_text(
        "from torch import distributed as d\nd.init_process_group('gloo')\nprint('world', d.get_world_size())\n"
    )
    assert "world 1" in cluster.dlsys("submit", "--", "python", "alone.py", cwd=tmp_path).stdout


# Rank 1 does what the first word says; each rank has a child with a session of its own.
_SCRIPT = """
import os, signal, subprocess, sys, time

rank = int(os.environ["RANK"])
child = subprocess.Popen(["sleep", "1000"], start_new_session=True)

def asked(*args):
    print("asked", flush=True)
    child.terminate()
    print("child", child.wait(), flush=True)
    sys.exit(0)

signal.signal(signal.SIGTERM, asked)
print("ready", flush=True)
time.sleep(1)
if rank == 1 and sys.argv[1] == "exit":
    sys.exit(7)
if rank == 1 and sys.argv[1] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
while True:
    time.sleep(0.05)
"""


class Ranks:
    """A running command of two ranks."""

    def __init__(self, cluster: Cluster, folder: Path, word: str) -> None:
        self._cluster = cluster
        (folder / "ranks.py").write_text(_SCRIPT)
        words = ("submit", "-d", "--workers", "2", "--", "python", "ranks.py", word)
        self.job = cluster.dlsys(*words, cwd=folder).stdout.strip()

    def log(self, rank: int) -> str:
        path = self._cluster.run(self.job).log(rank)
        return path.read_text() if path.exists() else ""

    def ready(self) -> None:
        self._cluster.until(lambda: all("ready" in self.log(rank) for rank in (0, 1)))

    def family(self, word: str = "") -> list[psutil.Process]:
        """The processes of this job: driver, actors, guards, ranks and their children."""
        found = []
        for process in self._cluster.marked():
            try:
                told, line = process.environ(), " ".join(process.cmdline())
            except psutil.Error:
                continue
            ours = told.get("TORCHELASTIC_RUN_ID") == self.job or self.job in line
            if ours and word in line and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found

    def gone(self) -> None:
        self._cluster.until(lambda: not self.family(), 40, lambda: str(self.family()))


@pytest.mark.parametrize(
    ("word", "code", "said"),
    [("exit", 7, "ended with exit code 7"), ("kill", 137, "was ended by SIGKILL")],
)
def test_a_failing_rank_ends_the_others(
    cluster: Cluster, tmp_path: Path, word: str, code: int, said: str
) -> None:
    ranks = Ranks(cluster, tmp_path, word)
    found = cluster.wait_for(ranks.job, ("FAILED",))
    assert found["exit_code"] == code
    assert found["reason"].startswith("rank 1 on ")
    assert found["reason"].endswith(said)
    assert "asked\nchild -15" in ranks.log(0)
    ranks.gone()


def test_stopped_every_process_is_asked_to_end(cluster: Cluster, tmp_path: Path) -> None:
    ranks = Ranks(cluster, tmp_path, "wait")
    ranks.ready()
    cluster.dlsys("jobs", "stop", ranks.job)
    cluster.wait_for(ranks.job, ("STOPPED",))
    for rank in (0, 1):
        assert "asked\nchild -15" in ranks.log(rank)
    ranks.gone()


def test_a_killed_driver_leaves_nothing(cluster: Cluster, tmp_path: Path) -> None:
    ranks = Ranks(cluster, tmp_path, "wait")
    ranks.ready()
    (driver,) = ranks.family("job-group")
    driver.kill()
    cluster.wait_for(ranks.job, ("FAILED",))
    ranks.gone()


def test_a_killed_actor_ends_its_rank_and_the_others(cluster: Cluster, tmp_path: Path) -> None:
    ranks = Ranks(cluster, tmp_path, "wait")
    ranks.ready()
    actors = [
        p for p in cluster.marked() if "ray::" in " ".join(p.cmdline()) and "_Rank" in " ".join(p.cmdline())
    ]
    assert len(actors) == 2
    actors[0].kill()
    found = cluster.wait_for(ranks.job, ("FAILED",))
    assert "was lost: its worker or its node died" in found["reason"]
    ranks.gone()
