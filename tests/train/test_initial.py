"""What training begins with, what stays as it is, and when nothing becomes better any more."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from harness import QUICK, Trained, job, train, with_workers
from safetensors.torch import save_file
from torch import Tensor, nn

from dlsys.errors import SpecError, UsageError
from dlsys.paths import RunPaths
from dlsys.train.checkpoint import CheckpointStore


class Net(nn.Module):
    """Other classes are another `head`; the rest is `body`."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU())
        self.head = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


MINE = (f"workload={__name__}:Net", "optimizer={name: adam, lr: 0.01}")


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trained]:
    folder = tmp_path_factory.mktemp("before")
    return folder, train(job(QUICK, *MINE), folder)


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_file_is_what_training_begins_with(
    suffix: str, before: tuple[Path, Trained], tmp_path: Path
) -> None:
    _, earlier = before
    if suffix == "pt":
        torch.save(earlier.weights, tmp_path / "w.pt")
    else:
        weights = {f"net.{name}": tensor for name, tensor in earlier.weights.items()}
        save_file(weights, tmp_path / "w.safetensors")
    rename = "" if suffix == "pt" else ', rename: {net.: ""}'
    init = f"init={{file: w.{suffix}{rename}}}"
    still = train(job(QUICK, *MINE, init, "freeze=['body.*']", "stop.steps=3"), tmp_path)
    for name, tensor in earlier.weights.items():
        assert torch.equal(still.weights[name], tensor) == name.startswith("body."), name
    assert any(note.startswith(f"begins with 4 tensors of w.{suffix}") for note in still.notes)
    assert still.points["train/loss"][1] < 0.9 * earlier.points["train/loss"][1]


def test_a_run_is_what_training_begins_with(
    before: tuple[Path, Trained], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, earlier = before
    monkeypatch.setenv("DLSYS_HOME", str(tmp_path))
    paths = RunPaths.create("first-20260101-000000-abcd")
    saved = CheckpointStore(folder / "checkpoints").latest()
    assert saved is not None
    store = CheckpointStore(paths.checkpoints)
    store.save(saved)
    store.wait()
    other = ("model={classes: 10}", "init={run: first-2026, leave: ['head.*']}")
    found = train(job(QUICK, *MINE, *other, "freeze=['body.*']"), tmp_path / "x")
    for name in ("body.1.weight", "body.1.bias"):
        assert torch.equal(found.weights[name], earlier.weights[name])
    note = next(note for note in found.notes if note.startswith("begins with 2 tensors of first-20260101"))
    assert note.endswith("step 12; begun anew: head.bias, head.weight")


def test_a_resumed_run_needs_no_first_weights(before: tuple[Path, Trained], tmp_path: Path) -> None:
    torch.save(before[1].weights, tmp_path / "w.pt")
    text = (*MINE, "init={file: w.pt}", "freeze=[body.1.bias]")
    whole = train(job(QUICK, *text), tmp_path)
    (tmp_path / "other").mkdir()
    torch.save(before[1].weights, tmp_path / "other" / "w.pt")
    half = train(job(QUICK, *text, "checkpoint.every=3 steps"), tmp_path / "other", stop_after=6)
    assert half.result.reason == "interrupted"
    (tmp_path / "other" / "w.pt").unlink()
    rest = train(job(QUICK, *text), tmp_path / "other")
    assert all(torch.equal(rest.weights[name], tensor) for name, tensor in whole.weights.items())
    saved = CheckpointStore(tmp_path / "other" / "checkpoints").latest()
    assert saved is not None
    assert set(saved.optimizers["main"]["state"]) == {"body.1.weight", "head.weight", "head.bias"}


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "zero", "ring"])
def test_frozen_parts_are_the_same_under_every_strategy(
    strategy: str, before: tuple[Path, Trained], tmp_path: Path
) -> None:
    torch.save(before[1].weights, tmp_path / "w.pt")
    text = (*MINE, f"init={{file: {tmp_path / 'w.pt'}}}", "freeze=['body.*']")
    single = train(job(QUICK, *text), tmp_path / "one")
    two = job(QUICK, *text, f"strategy.name={strategy}", "resources.workers=2")
    found = with_workers(two, tmp_path / "two").weights
    for name, tensor in single.weights.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=1e-5)
    assert torch.equal(found["body.1.weight"], before[1].weights["body.1.weight"])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("init={file: none.pt}",), "init: none.pt: cannot be read"),
        (("init={file: pickled.pt}",), "init: pickled.pt: holds more than tensors"),
        (("init={file: list.pt}",), "init: list.pt: is no mapping of names to tensors"),
        (
            ("init={file: other.pt}",),
            "init: other.pt has 'head.wieght', and the model has not. Did you mean 'h",
        ),
        (
            ("init={file: w.pt}", "model={classes: 12}"),
            "init: head.bias is of shape (10,) in w.pt, and of (12,)",
        ),
        (("freeze=['boddy.*']",), "freeze: no parameter is called 'boddy.*'. Known: body.1.weight"),
        (("freeze=['*']",), "freeze: nothing is left to train"),
    ],
)
def test_what_does_not_fit_is_told(
    overrides: tuple[str, ...], said: str, before: tuple[Path, Trained], tmp_path: Path
) -> None:
    torch.save(before[1].weights, tmp_path / "w.pt")
    torch.save([1], tmp_path / "list.pt")
    torch.save({"x": Path()}, tmp_path / "pickled.pt")
    torch.save({"head.wieght": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(UsageError) as found:
        train(job(QUICK, *MINE, *overrides), tmp_path)
    assert said in str(found.value)


def test_init_is_a_run_or_a_file() -> None:
    for wrong in ("init={}", "init={run: a, file: b}"):
        with pytest.raises(SpecError, match="init: begins with a run or with a file: say one of them"):
            job(QUICK, wrong)


PATIENT = ("stop={epochs: 50, patience: 3}", "optimizer.lr=0.0000001", "evaluate=1 epoch", "seed=1")


def test_patience_ends_a_run_that_no_longer_improves(tmp_path: Path) -> None:
    """A metric that cannot change: the first evaluation is its best, and three more are waited for."""
    still = train(job(QUICK, *PATIENT, "checkpoint.best=valid/accuracy"), tmp_path / "a")
    assert still.result.reason == "patience"
    assert still.result.position.epoch == 4
    falling = train(job(QUICK, "stop={epochs: 6, patience: 3}"), tmp_path / "b")
    assert falling.result.reason == "finished"


def test_patience_is_kept_over_a_resume(tmp_path: Path) -> None:
    steps = 3 * 30 + 7  # within an epoch: who interrupts waits for no evaluation
    text = (*PATIENT, "checkpoint.best=valid/accuracy", "checkpoint.every=1 epoch")
    half = train(job(QUICK, *text), tmp_path, stop_after=steps)
    assert half.result.reason == "interrupted"
    rest = train(job(QUICK, *text), tmp_path)
    assert (rest.result.reason, rest.result.position.epoch) == ("patience", 4)
    more = train(job(QUICK, *text, "stop.patience=5"), tmp_path)
    assert (more.result.reason, more.result.position.epoch) == ("patience", 6)
