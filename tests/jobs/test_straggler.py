"""A worker that is steadily slower than the others is named, once; noise is not."""

from __future__ import annotations

import random
import socket

import pytest
from runner import Folder

from dlsys.jobs.straggler import Judge
from dlsys.track.spool import records
from dlsys.track.writer import sync

SLOWER = """

class Slower(Mine):
    def objective(self, outputs, batch):
        if torch.is_grad_enabled() and str(rank()) == os.environ.get("SLOW_RANK"):
            time.sleep(0.06)
        return super().objective(outputs, batch)
"""
# Two for whom a step takes long enough that it can be told from noise.
RUN = ("run", "job.yaml", "workload=mine:Slower", "stop={steps: 240}", "checkpoint.every='1000 steps'")
TWO = ("resources.workers=2", "strategy.name=ddp")


def news(*windows: dict[int, float]) -> list[tuple[int, bool, int]]:
    judge = Judge()
    found = (judge.compare(busy, 10 * number) for number, busy in enumerate(windows))
    return [(each.rank, each.slow, each.since) for changes in found for each in changes]


def test_slow_for_long_is_told_once_and_its_end_too() -> None:
    even, slow = {0: 0.01, 1: 0.01, 2: 0.01}, {0: 0.01, 1: 0.02, 2: 0.01}
    assert news(*[even] * 3, *[slow] * 20, *[even] * 20) == [(1, True, 30), (1, False, 230)]


def test_two_ranks_and_two_stragglers() -> None:
    assert news(*[{0: 0.03, 1: 0.01}] * 9) == [(0, True, 0)]
    four = {0: 0.01, 1: 0.05, 2: 0.01, 3: 0.05, 4: 0.01}
    assert news(*[four] * 9) == [(1, True, 0), (3, True, 0)]


def test_what_comes_and_goes_or_is_tiny_is_not_told() -> None:
    even, slow = {0: 0.01, 1: 0.01}, {0: 0.01, 1: 0.05}
    assert news(*[slow, slow, slow, slow, even] * 10) == []
    assert news(*[{0: 0.0001, 1: 0.0009}] * 20) == []
    noise = random.Random(0)
    assert news(*[{rank: noise.uniform(0.01, 0.02) for rank in range(2)} for _ in range(500)]) == []


def test_between_slow_and_like_the_others_nothing_changes() -> None:
    slow, between = {0: 0.01, 1: 0.02}, {0: 0.01, 1: 0.0135}
    assert news(*[slow] * 6, *[between] * 20, *[slow] * 20) == [(1, True, 0)]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("slow", [1, None])
def test_a_rank_that_is_slow_in_each_step_is_named(slow: int | None, folder: Folder) -> None:
    with open(folder.path / "mine.py", "a") as file:
        file.write(SLOWER)
    pace = {"SLOW_RANK": str(slow)} if slow is not None else {"STEP_SECONDS": "0.06"}
    done = folder.dlsys(*RUN, *TWO, **pace)
    assert done.code == 0, done.err
    sync(folder.run)  # the writer may still be at it
    (run,) = folder.mlflow_runs()
    told = [line for line in done.err.splitlines() if "holds the others up" in line]
    if slow is None:
        assert told == []
        assert "dlsys.straggler" not in run.data.tags
        return
    (line,) = told
    assert f"rank {slow} on {socket.gethostname()} holds the others up since step " in line
    assert run.data.tags["dlsys.straggler"].startswith(f"rank {slow} on {socket.gethostname()}: ")
    busy = [run.data.metrics[f"system/rank{rank}/busy_seconds"] for rank in (0, 1)]
    assert busy[1] > 0.06 > 2 * busy[0]
    spools = [found for found, _ in records(folder.run.spool / "driver.jsonl")]
    assert len(spools) == 1, "told once"
