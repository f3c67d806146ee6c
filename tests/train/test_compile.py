"""A compiled model trains as the plain one does, and what it leaves is a plain model's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from harness import QUICK, job, train, with_workers
from torch import Tensor, nn

from dlsys.errors import SpecError, UsageError
from dlsys.train.checkpoint.export import export

pytestmark = pytest.mark.slow
MINE = (f"workload={__name__}:Net", "optimizer={name: adam, lr: 0.01}", "stop.steps=6")


class Net(nn.Module):
    """Tells whether its forward is compiled."""

    compiled = False

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            Net.compiled = True
        return self.body(x)


def test_compiled_is_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR", "TORCHINDUCTOR_COMPILE_THREADS"):
        monkeypatch.setenv(name, "1")  # which inductor sets itself: it goes with the test
        monkeypatch.delenv(name)
    plain = train(job(QUICK, *MINE), tmp_path / "plain")
    assert not Net.compiled
    found = train(job(QUICK, *MINE, "compile=true"), tmp_path / "compiled")
    assert Net.compiled
    assert found.weights.keys() == plain.weights.keys()
    for name, tensor in plain.weights.items():
        torch.testing.assert_close(found.weights[name], tensor, atol=1e-5, rtol=1e-5)
    assert found.result.metrics["valid/loss"] == pytest.approx(plain.result.metrics["valid/loss"], abs=1e-5)
    export(tmp_path / "compiled" / "checkpoints", tmp_path / "weights.pt")
    model = Net()
    model.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    two = with_workers(
        job(QUICK, *MINE, "compile=true", "strategy.name=ddp", "resources.workers=2"), tmp_path / "two"
    )
    for name, tensor in plain.weights.items():
        torch.testing.assert_close(two.weights[name], tensor, atol=1e-5, rtol=1e-5)


def test_where_it_cannot_be_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match="compile: is for single and ddp, got strategy fsdp"):
        job(QUICK, "compile=true", "strategy.name=fsdp", "resources.workers=2")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UsageError, match=r"compile: torch\.compile needs a C\+\+ compiler"):
        train(job(QUICK, *MINE, "compile=true"), tmp_path)
