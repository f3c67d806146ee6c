"""kill -9 of asynchronous workers: the others make their shares and measure their rows."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import Trained, in_workers, job, train, train_worker
from parameter_servers import serving

from dlsys.registry import STRATEGIES
from dlsys.spec.train.job import TrainJob
from dlsys.train import evaluate as evaluate_module
from dlsys.train.checkpoint import CheckpointStore
from dlsys.train.meter import Meter
from dlsys.train.ps.wire import Servers
from dlsys.train.strategies.base import StepResult
from dlsys.train.strategies.ps import PSStrategy
from dlsys.train.world import World

# 30 steps an epoch; workers meet at each tenth, and to save at 15 and 45.
STEPS = 60
ROWS = 180  # of the validation set, and of the test set
LENET = f"""
kind: train
name: test
workload: lenet-5
data: {{source: digits}}
batch_size: 48
optimizer: {{name: adam, lr: 0.002}}
strategy: {{name: ps, mode: async, servers: 2}}
resources: {{workers: 3}}
stop: {{steps: {STEPS}}}
checkpoint: {{every: 15 steps}}
"""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Mortal(PSStrategy):
    """Rank 2 dies at a chosen moment; where the moment is `waiting`, rank 1 soon after it."""

    moment = ""

    def train_step(self, batch, step, hyper):
        rank = self._parts.world.rank
        self.rank_2_at = self.moment if rank == 2 and step == 15 else ""
        if self.rank_2_at == "waiting":  # all it still does is to wait for the others
            threading.Timer(0.3, die).start()
        if self.moment == "waiting" and rank == 1 and step == 15:
            time.sleep(1.0)
            die()
        result = super().train_step(batch, step, hyper)
        if self.rank_2_at == "meeting":
            die()
        return result

    def update(self, trained, step, hyper, sums):
        if self.rank_2_at == "computing":
            die()
        if self.rank_2_at == "half":  # one server has the push, the other has not
            del self._client._links[1]
        norm = super().update(trained, step, hyper, sums)
        if self.rank_2_at in ("half", "pushed"):
            die()
        return norm

    def evaluate_step(self, micro, carry):
        if self._parts.world.rank == 2 and self.moment == "measuring" and self._span.meeting == STEPS:
            die()
        return super().evaluate_step(micro, carry)


@dataclass
class Seen:
    """What a worker tells.

    Attributes:
        rows: for each evaluation, how many it counted.
        keys: for each, those that this worker measured last, for what was lost is measured again.
    """

    trained: Trained
    rows: list[float]
    keys: list[list[int]]


def work(world: World, job: TrainJob, folder: str, servers: Servers, moment: str) -> Seen:
    mine: list[int] = []
    rows: list[float] = []
    keys: list[list[int]] = []

    class Noting(Mortal):
        def evaluate_step(self, micro, carry):
            mine.extend(micro.batch["key"][: micro.real].tolist())
            return super().evaluate_step(micro, carry)

    measure = evaluate_module._measure

    def measured(*arguments: Any) -> Any:
        mine.clear()
        return measure(*arguments)

    def evaluated(*arguments: Any, **named: Any) -> Any:
        sums = evaluate_module.evaluate(*arguments, **named)
        rows.append(float(sums["rows"]))
        keys.append(list(mine))
        return sums

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Mortal, "moment", moment)
        patch.setattr(STRATEGIES, "load", lambda name: Noting)
        patch.setattr(evaluate_module, "_measure", measured)
        patch.setattr("dlsys.train.loop.evaluate", evaluated)
        return Seen(train(job, Path(folder), world=world, servers=servers), rows, keys)


@pytest.mark.parametrize(
    ("moment", "survivors"),
    [
        ("computing", 2),
        ("half", 2),
        ("pushed", 2),
        ("meeting", 2),
        ("measuring", 2),
        ("waiting", 1),
    ],
)
def test_the_others_go_on(moment: str, survivors: int, tmp_path: Path) -> None:
    described = job(LENET)
    with serving(described) as servers:
        found = in_workers(3, work, described, str(tmp_path), servers, moment, mortal=True)
    left = [seen for seen in found if seen is not None]
    assert [seen is not None for seen in found] == [True] * survivors + [False] * (3 - survivors)
    first = left[0].trained
    assert all(seen.trained.result.position.step == STEPS for seen in left)
    # Adam counts its updates, shard by shard: every share of every step once, on both servers.
    saved = CheckpointStore(tmp_path / "checkpoints").latest()
    assert saved is not None
    counted = {float(state["step"]) for state in saved.optimizers["main"]["state"].values()}
    assert counted == {3.0 * STEPS}
    assert len(saved.ranks) == survivors
    # Each evaluation counts all rows, each of them once.
    assert all(set(seen.rows) == {ROWS} for seen in left)
    for evaluation in (-2, -1):  # at the last step, and of the test set
        keys = [key for seen in left for key in seen.keys[evaluation]]
        assert len(keys) == len(set(keys)) == ROWS
    losses = first.points["train/loss"]
    assert sorted(losses) == [10, 20, 30, 40, 50, 60]
    assert losses[60] < 0.7 * losses[10]
    (note,) = [text for text in first.notes if "lost" in text] if survivors == 2 else [first.notes[-1]]
    by = STEPS if moment == "measuring" else 15
    assert note.endswith(f"by step {by}; {survivors} of 3 go on")


def test_who_pushes_updates_goes_on_too(tmp_path: Path) -> None:
    described = job(LENET, "strategy={name: ps, mode: async, push: updates, local_steps: 3}")
    with serving(described) as servers:
        found = in_workers(3, work, described, str(tmp_path), servers, "computing", mortal=True)
    assert found[2] is None
    assert [seen.trained.result.position.step for seen in found[:2]] == [STEPS] * 2
    losses = found[0].trained.points["train/loss"]
    assert losses[60] < 0.7 * losses[10]


def test_a_mean_is_over_all_shares_that_are_in_a_sum() -> None:
    meter = Meter()
    meter.add(StepResult({"loss": torch.tensor(1.0)}, torch.zeros(())), 8, 0.0, 0.1)
    meter.add(StepResult({"loss": torch.tensor(5.0)}, torch.zeros(()), shares=2), 8, 0.0, 0.1)
    assert meter.take(World())["train/loss"] == 2.0


def test_a_run_that_lost_a_worker_is_taken_up_by_all(tmp_path: Path) -> None:
    described = job(LENET, "stop={steps: 20}")
    with serving(described) as servers:
        in_workers(3, work, described, str(tmp_path), servers, "computing", mortal=True)
    longer = job(LENET, "stop={steps: 40}")
    with serving(longer) as servers:
        found = in_workers(3, train_worker, longer, str(tmp_path), None, servers)
    assert "continues from the checkpoint of step 20" in found[0].notes
    assert [trained.result.position.step for trained in found] == [40] * 3


def test_who_loses_rank_0_ends(tmp_path: Path) -> None:
    described = job(LENET)
    with serving(described) as servers:
        told = in_workers(3, without_rank_0, described, str(tmp_path), servers, mortal=True)
    assert told == [None] + ["WorkerDiedError: lost rank 0, where workers meet"] * 2


def without_rank_0(world: World, job: TrainJob, folder: str, servers: Servers) -> str:
    class Headless(PSStrategy):
        def train_step(self, batch, step, hyper):
            if world.is_main and step == 15:
                die()
            return super().train_step(batch, step, hyper)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(STRATEGIES, "load", lambda name: Headless)
        try:
            train(job, Path(folder), world=world, servers=servers)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return "ended"
