"""The test at the end is of the best checkpoint, whoever trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from harness import QUICK, job, reference, train, with_workers

from dlsys.train.checkpoint import CheckpointStore
from dlsys.zoo.tasks.classify import Classify
from dlsys.zoo.workload import Cut

PEAKED = (
    "workload=test_best_is_tested:Peaked",
    "checkpoint={best: valid/seen, keep: 9}",
    "evaluate='4 steps'",
)
STRATEGIES = {
    "ddp": (),
    "local": ("strategy={name: ddp, local_sgd: {every: 3}}",),
    "ring": ("strategy.name=ring",),
    "ps": ("strategy.name=ps",),
    "fsdp": ("strategy.name=fsdp",),
    "zero": ("strategy={name: zero, stage: 2}",),
    "zero 3": ("strategy={name: zero, stage: 3}",),
    "pipeline": ("strategy={name: pipeline, micro_batches: 2}",),
    "tensor": ("strategy.name=tensor",),
}


class Peaked(Classify):
    """Is best at the second evaluation of three."""

    metrics = {"accuracy": "max", "seen": "max"}  # noqa: RUF012
    measured = 0
    tensor_plan = {"1": Cut("column"), "3": Cut("row")}  # noqa: RUF012

    def build(self) -> torch.nn.Module:
        layers = [torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)]
        return torch.nn.Sequential(torch.nn.Flatten(), *layers)

    def measure(self, outputs, batch):
        return {**super().measure(outputs, batch), "seen": torch.zeros(())}

    def summarize(self, sums):
        self.measured += 1
        return {**super().summarize(sums), "seen": 1 - abs(self.measured - 2.0)}


def by_hand(folder: Path) -> float:
    """The test loss of the best checkpoint's weights."""
    from dlsys.data import load

    told = job(QUICK, *PEAKED)
    store = CheckpointStore(folder / "checkpoints", keep=9)
    best = store.best()
    assert best is not None
    assert best.name.endswith("08")
    found = store.read_best(but=12)
    assert found is not None
    splits = load(told.data, folder)
    assert splits.test is not None
    model = Peaked(told.model, splits.shape).build().eval()
    model.load_state_dict(found.model)
    batch = splits.test.batch(np.arange(len(splits.test)))
    return float(torch.nn.functional.cross_entropy(model(batch["image"].float()).detach(), batch["label"]))


def test_one_worker(tmp_path: Path) -> None:
    found = train(job(QUICK, *PEAKED), tmp_path)
    assert found.result.position.step == 12
    assert found.result.metrics["test/loss"] == pytest.approx(by_hand(tmp_path), rel=1e-5)
    assert "the test is of the best checkpoint: step 8, valid/seen 1" in found.notes
    again = train(job(QUICK, *PEAKED, "stop.steps=16"), tmp_path)
    assert again.points["train/loss"].keys() == {13, 14, 15, 16}, "it went on from the end"


def test_without_a_best_the_last_weights_are_tested(tmp_path: Path) -> None:
    found = train(job(QUICK, PEAKED[0]), tmp_path)
    assert not [note for note in found.notes if "the test is of" in note]


def test_a_damaged_best_is_said(tmp_path: Path) -> None:
    train(job(QUICK, *PEAKED, "stop.steps=9"), tmp_path)
    (tmp_path / "checkpoints" / "step-0000000008" / "model.safetensors").write_bytes(b"")
    found = train(job(QUICK, *PEAKED, "evaluate='100 epochs'"), tmp_path)
    assert [note for note in found.notes if note.startswith("the best checkpoint cannot be tested, the last")]
    assert found.result.metrics["test/loss"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy(strategy: str, tmp_path: Path) -> None:
    several = job(QUICK, *PEAKED, "resources.workers=2", *STRATEGIES[strategy])
    found = with_workers(several, tmp_path)
    assert [note for note in found.notes if "the test is of the best checkpoint: step 8" in note]
    rel = 1e-4
    if strategy == "local":
        assert found.result.metrics["test/loss"] > 0
    else:
        truth = reference(job(QUICK, *PEAKED)).result.metrics
        assert found.result.metrics["test/loss"] == pytest.approx(truth["test/loss"], rel=rel)
        assert abs(truth["test/loss"] - truth["valid/loss"]) > 10 * rel
