"""Weights as one plain file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from harness import assert_equal, job, train
from safetensors.torch import load_file

from dlsys.errors import UsageError
from dlsys.train.checkpoint import CheckpointStore, Position, Saved
from dlsys.train.checkpoint.export import export


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_a_plain_module_takes_the_file(name: str, tmp_path: Path) -> None:
    trained = train(job(), tmp_path)
    step, count = export(tmp_path / "checkpoints", tmp_path / name)
    assert (step, count) == (12, 650)
    path = tmp_path / name
    found = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    assert_equal(found, trained.weights)


def test_the_best_is_chosen(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    for step in (3, 6):
        store.save(Saved(Position(step=step), {"w": torch.full((2,), float(step))}, {}), best=step == 3)
    store.wait()
    for best, step in ((True, 3), (False, 6)):
        assert export(tmp_path, tmp_path / "w.pt", best=best) == (step, 2)
        assert torch.load(tmp_path / "w.pt")["w"].tolist() == [step, step]


def test_nothing_to_export_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no checkpoint yet"):
        export(tmp_path / "checkpoints", tmp_path / "w.pt")
    with pytest.raises(UsageError, match=r"has no best checkpoint \(checkpoint.best"):
        export(tmp_path / "checkpoints", tmp_path / "w.pt", best=True)


def test_an_unwritable_target_is_said(tmp_path: Path) -> None:
    train(job(), tmp_path)
    with pytest.raises(UsageError, match="cannot be written"):
        export(tmp_path / "checkpoints", tmp_path / "no" / "such" / "w.pt")
