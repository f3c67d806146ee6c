"""Models as people have them: what they give, are made of, and what is said of those that cannot train."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import QUICK, Trained, job, train
from torch import Tensor, nn

from dlsys.errors import DlsysError, UsageError
from dlsys.spec.rows import Shape
from dlsys.train.checkpoint.export import export
from dlsys.zoo.imported import PlainModel


class Base(nn.Module):
    def __init__(self, inputs: int = 64, outputs: int = 10) -> None:
        super().__init__()
        self.flat, self.dense = nn.Flatten(), nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Any:
        return self.dense(self.flat(x))


class Several(Base):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x), x


class Named(Base):
    def forward(self, x: Tensor) -> Any:
        return OrderedDict(hidden=x, logits=super().forward(x))


class Unnamed(Base):
    def forward(self, x: Tensor) -> Any:
        return {"a": super().forward(x), "b": x}


class Masked(Base):
    """Buffers of infinities, of whole numbers and of complex ones."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.full((10, 10), -torch.inf).triu(1))
        self.register_buffer("order", torch.arange(10))
        self.register_buffer("turn", torch.polar(torch.ones(10), torch.arange(10.0)))
        self.phase = nn.Parameter(torch.ones(10, dtype=torch.complex64) * 1j)

    def forward(self, x: Tensor) -> Any:
        logits = super().forward(x)[:, self.order]
        weights = self.mask.softmax(1)
        return logits @ weights.T + (self.turn * self.phase).real


class Scalar(Base):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Any:
        return super().forward(x) * self.scale


def lazy() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(16), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(10))


def compiled() -> nn.Module:
    return torch.compile(Base(), backend="eager")  # type: ignore[return-value]


def frozen() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))
    model[1].requires_grad_(False)
    return model


def sparse() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), Table())


class Table(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 10, sparse=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table(torch.zeros(len(x), dtype=torch.int64))


def run(folder: Path, model: str, *overrides: str) -> Trained:
    return train(job(QUICK, f"workload=test_plain_models:{model}", *overrides), folder)


@pytest.mark.parametrize(
    "model", ["Base", "Several", "Named", "Masked", "Scalar", "lazy", "compiled", "frozen"]
)
def test_it_trains_resumes_and_is_exported(model: str, tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", model)
    run(tmp_path / "parts", model, "stop.steps=5")
    rest = run(tmp_path / "parts", model)
    assert rest.losses == {step: loss for step, loss in whole.losses.items() if step > 5}
    assert whole.losses[12] < whole.losses[1]
    for name, weight in whole.weights.items():
        assert torch.equal(weight, rest.weights[name]), name
    step, _ = export(tmp_path / "parts" / "checkpoints", tmp_path / "w.pt")
    kept = torch.load(tmp_path / "w.pt", weights_only=True)
    assert step == 12
    assert not any("_orig_mod" in name for name in kept)
    for name, weight in rest.weights.items():
        assert kept[name].dtype == weight.dtype, name


@pytest.mark.parametrize(
    ("model", "overrides", "said"),
    [
        ("Unnamed", (), "gives a dict with a, b, and one tensor is wanted: name it logits"),
        (
            "Base",
            ("model.outputs=1",),
            "gives outputs of shape (48, 1), and for these rows and classes (48, 10)",
        ),
        ("Base", ("model.outputs=11",), "(48, 11), and for these rows and classes (48, 10) is wanted"),
        ("sparse", (), "2.table.weight has sparse gradients"),
        ("Masked", ("precision=fp64",), "precision: phase is complex"),
    ],
)
def test_what_cannot_train_is_told_in_a_sentence(
    model: str, overrides: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    with pytest.raises(DlsysError) as found:
        run(tmp_path, model, *overrides)
    assert said in str(found.value)
    assert "\n" not in str(found.value)


def test_inputs_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as found:
        train(job(QUICK, "workload=torch.nn:Linear", "model={in_features: 9, out_features: 10}"), tmp_path)
    assert "workload: torch.nn:Linear does not take image of shape (48, 1, 8, 8)" in str(found.value)


@pytest.mark.parametrize(
    "text",
    ["[pair.cc:537] Read error [127.0.0.1]:1: Connection reset by peer", "can't allocate memory: 9 bytes"],
)
def test_what_a_library_met_elsewhere_is_no_misfit(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead peer and short memory have a mend of their own: the run is tried again."""

    def fail(*_: Any) -> Tensor:
        raise RuntimeError(text)

    monkeypatch.setattr("dlsys.zoo.imported.user_traceback", lambda error: "")
    monkeypatch.setattr(nn.Identity, "forward", fail)
    plain = PlainModel(nn.Identity, {}, Shape(row={"image": (1, 8, 8), "label": ()}, classes=10))
    with pytest.raises(RuntimeError) as found:
        plain.forward(plain.build(), {"image": torch.zeros(2, 1, 8, 8), "label": torch.zeros(2)}, None)
    assert str(found.value) == text


class Normed(Base):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Any:
        return super().forward(self.norm(x))


@pytest.mark.parametrize("overrides", [("gradient.accumulate=2",), ("gradient.accumulate=48",)])
def test_running_statistics_see_real_rows_alone(overrides: tuple[str, ...], tmp_path: Path) -> None:
    """1,437 rows: 29 batches of 48, and one of 45, which leaves parts of it without a row."""
    found = run(tmp_path, "Normed", *overrides, "stop={epochs: 1}")
    micro = int(overrides[0].rpartition("=")[2])
    whole, rest = divmod(1437, 48)
    last = sum(1 for part in range(micro) if 48 * part // micro < rest)
    assert int(found.weights["norm.num_batches_tracked"]) == whole * micro + last
