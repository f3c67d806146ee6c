"""Workers out of step: they still learn, share the work as they can, and keep their bounds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from harness import Trained, assert_equal, in_workers, job, train, train_worker
from parameter_servers import serving

from dlsys.registry import STRATEGIES
from dlsys.spec.load import SpecError
from dlsys.spec.train.job import TrainJob
from dlsys.train.ps.wire import Servers
from dlsys.train.strategies.ps import PSStrategy
from dlsys.train.world import World

LENET = """
kind: train
name: test
workload: lenet-5
data: {source: digits}
batch_size: 48
optimizer: {name: sgd, lr: 0.05, momentum: 0.9}
gradient: {clip_norm: 1.0}
strategy: {name: ps, mode: async}
resources: {workers: 2}
stop: {epochs: 6}
checkpoint: {every: 2 epochs}
"""


def run(folder: Path, *overrides: str, text: str = LENET) -> list[Trained]:
    described = job(text, *overrides)
    with serving(described) as servers:
        return in_workers(2, train_worker, described, str(folder), None, servers)


@pytest.mark.parametrize(
    "strategy",
    [
        "{name: ps, mode: async, servers: 2}",
        "{name: ps, mode: ssp, staleness: 3}",
        "{name: ps, mode: async, push: updates, local_steps: 2}",
    ],
    ids=["async", "ssp", "async-updates"],
)
def test_digits_are_learned_out_of_step(strategy: str, tmp_path: Path) -> None:
    first, second = run(tmp_path, f"strategy={strategy}")
    assert first.result.metrics["valid/accuracy"] > 0.93
    assert first.result.position.step == second.result.position.step == 6 * 30
    # They measured the same weights, which are those of the checkpoint.
    assert first.result.metrics["valid/loss"] == second.result.metrics["valid/loss"]
    assert all(first.points["train/loss"][step] > 0 for step in range(10, 181, 10))
    stale = [first.points["ps/staleness_max"][step] for step in range(10, 181, 10)]
    if "ssp" in strategy:
        assert max(stale) <= 3
    assert first.points["ps/staleness_mean"][180] <= stale[-1]


@pytest.mark.quality
def test_clicks_are_learned_out_of_step(tmp_path: Path) -> None:
    text = LENET.replace("lenet-5", "dlrm").replace("digits", "synthetic-ctr, rows: 4000, cardinality: 20")
    own = ("optimizer={name: adagrad, lr: 0.02}", "stop={epochs: 4}")
    first, _ = run(tmp_path, *own, text=text)
    assert first.result.metrics["valid/auc"] > 0.65  # 0.5 is chance; one worker reaches 0.72


class Watched(PSStrategy):
    """Notes the rows of each share it computes; the second worker is slow."""

    def train_step(self, batch, step, hyper):
        if self._parts.world.rank == 1:
            time.sleep(0.1)
        self.seen.append((step, batch.micros[0].batch["key"].tolist()))
        return super().train_step(batch, step, hyper)


def watched(world: World, job: TrainJob, folder: str, servers: Servers) -> list[tuple[int, list[int]]]:
    Watched.seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(STRATEGIES, "load", lambda name: Watched)
        train(job, Path(folder), world=world, servers=servers)
    return Watched.seen


def test_who_is_quick_takes_more_shares(tmp_path: Path) -> None:
    """Every row of an epoch once; the slow worker meets the other at log points, and lags between."""
    described = job(LENET, "stop={epochs: 1}", "checkpoint.every='15 steps'")
    with serving(described) as servers:
        quick, slow = in_workers(2, watched, described, str(tmp_path), servers)
    assert len(quick) + len(slow) == 2 * 30
    assert len(quick) > 1.5 * len(slow)
    keys = [key for _, rows in quick + slow for key in rows]
    assert len(keys) == len(set(keys)) == 1437
    for meeting in (10, 15, 20, 30):
        assert [step for step, _ in quick].count(meeting) == 1
        assert [step for step, _ in slow].count(meeting) == 1


def test_carried_state_stays_with_its_worker(tmp_path: Path) -> None:
    text = LENET.replace("lenet-5", "char-rnn").replace("digits", "pydoc, limit: 20000, window: 16")
    first, second = run(tmp_path, "stop={steps: 12}", "model={hidden: 16, embedding: 8}", text=text)
    assert first.result.position.step == second.result.position.step == 12
    assert first.points["perf/sent_bytes_per_step"][10] > 0


def test_an_asynchronous_run_goes_on_alone_and_alone_goes_on(tmp_path: Path) -> None:
    """The checkpoint is the servers' state: weights, momentum and rate."""
    run(tmp_path, "stop={steps: 20}")
    ended = train(job(LENET, "stop={steps: 30}", "strategy={name: single}", "resources.workers=1"), tmp_path)
    assert "continues from the checkpoint of step 20" in ended.notes
    back, _ = run(tmp_path, "stop={steps: 40}")
    assert "continues from the checkpoint of step 30" in back.notes
    assert back.result.position.step == 40
    assert back.points["train/loss"][40] < 2.0


def test_a_checkpoint_read_and_written_is_the_same(tmp_path: Path) -> None:
    """Nothing of the optimizer's state is lost on its way through the servers, either way."""
    described = job(LENET, "stop={steps: 20}", "optimizer={name: adam}", "strategy={name: ps, servers: 2}")
    with serving(described) as servers:
        before, after = in_workers(2, through_servers, described, str(tmp_path), servers)[0]
    assert_equal(before, after)
    assert len(before) == 3 * 10 + 10  # weights, both moments and the step of each parameter


def through_servers(
    world: World, job: TrainJob, folder: str, servers: Servers
) -> list[dict[str, torch.Tensor]]:
    found: list[dict[str, torch.Tensor]] = []

    class Twice(PSStrategy):
        def state_out(self):
            state = super().state_out()
            self.state_in(state)
            again = super().state_out()
            for given in (state, again):
                flat = dict(given.model)
                for name, values in given.optimizers["main"]["state"].items():
                    flat |= {f"{name}/{key}": value for key, value in values.items()}
                found.append({name: value.detach().clone() for name, value in flat.items()})
            return again

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(STRATEGIES, "load", lambda name: Twice)
        train(job, Path(folder), world=world, servers=servers)
    return found[:2]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("local_steps: 3", "need push: updates"),
        ("staleness: 2", "a bound of 2 needs mode: ssp, not sync"),
        ("mode: async, staleness: 1", "a bound of 1 needs mode: ssp, not async"),
    ],
)
def test_options_that_contradict_each_other(options: str, problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        job(LENET, f"strategy={{name: ps, {options}}}")
