"""Activations that are computed again: less is kept, and the result is the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from harness import QUICK, assert_equal, job, train, with_workers
from torch import Tensor, nn

from dlsys.errors import SpecError, UsageError


class Deep(nn.Module):
    """Layers of a kind with what a second pass may spoil: dropout and running statistics."""

    kept = 0

    def __init__(self) -> None:
        super().__init__()
        self.begin = nn.Sequential(nn.Flatten(), nn.Linear(64, 32))
        self.layers = nn.ModuleList(self.layer() for _ in range(3))
        self.end = nn.Linear(32, 10)

    def layer(self) -> nn.Module:
        wide = nn.Linear(32, 128)
        return nn.Sequential(wide, nn.BatchNorm1d(128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 32))

    def forward(self, x: Tensor) -> Tensor:
        def keep(tensor: Tensor) -> Tensor:
            Deep.kept += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            x = self.begin(x)
            for layer in self.layers:
                x = x + layer(x)
            return self.end(x)


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(10, 64))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T


MINE = (f"workload={__name__}:Deep", "optimizer={name: adam, lr: 0.01}", "stop.steps=6")
AGAIN = "activation_checkpointing=true"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_result_is_the_same_and_less_is_kept(precision: str, tmp_path: Path) -> None:
    text = (*MINE, f"precision={precision}", "gradient.accumulate=2")
    Deep.kept = 0
    plain = train(job(QUICK, *text), tmp_path / "plain")
    all_kept, Deep.kept = Deep.kept, 0
    again = train(job(QUICK, *text, AGAIN), tmp_path / "again")
    assert Deep.kept < all_kept / 3
    assert_equal(again.weights, plain.weights)
    assert again.losses == plain.losses


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "ring", "fsdp"])
def test_several_workers_compute_the_same(strategy: str, tmp_path: Path) -> None:
    text = (*MINE, f"strategy.name={strategy}", "resources.workers=2")
    plain = with_workers(job(QUICK, *text), tmp_path / "plain")
    again = with_workers(job(QUICK, *text, AGAIN), tmp_path / "again")
    assert_equal(again.weights, plain.weights)


def test_where_it_cannot_be_is_told(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="is for single, ddp, ring and fsdp, got strategy tensor"):
        job(QUICK, AGAIN, "strategy.name=tensor", "resources.workers=2")
    with pytest.raises(UsageError, match="activation_checkpointing: Bare has no blocks"):
        train(job(QUICK, f"workload={__name__}:Bare", AGAIN), tmp_path)
