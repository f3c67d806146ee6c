"""What training begins with, what stays as it is, and when nothing becomes better any more."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from harness import QUICK, Trained, assert_equal, job, train, with_workers
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


RULES = """init={layers: [
  {match: [head.bias], name: constant, value: 0.5},
  {match: ["*.bias"], name: uniform, bound: 0.1},
  {match: ["body.*"], name: kaiming-normal, mode: fan_out},
  {match: ["head.*"], name: orthogonal, gain: 2},
]}"""


def begun(tmp_path: Path, *overrides: str) -> Trained:
    """What training begins with: after a step of next to nothing."""
    still = ("optimizer={name: sgd, lr: 1.0e-30}", "stop.steps=1")
    return train(job(QUICK, f"workload={__name__}:Net", *still, *overrides), tmp_path)


def test_layers_begin_as_the_job_says_by_their_names(tmp_path: Path) -> None:
    found = begun(tmp_path, RULES)
    weights = found.weights
    assert (weights["head.bias"] == 0.5).all()
    assert 0.05 < weights["body.1.bias"].abs().max() <= 0.1
    # 16 outputs: the variance is 2 / 16, and not 2 / 64.
    assert weights["body.1.weight"].std() == pytest.approx((2 / 16) ** 0.5, rel=0.1)
    head = weights["head.weight"]
    torch.testing.assert_close(head @ head.T, 4 * torch.eye(10), atol=1e-5, rtol=0)
    (note,) = [note for note in found.notes if "begins" in note]
    assert "constant begins head.bias (mean 0.5, std 0); uniform begins body.1.bias (mean" in note
    assert "orthogonal begins head.weight (mean" in note


@pytest.mark.parametrize(
    ("told", "mean", "low", "high"),
    [
        ("name: normal, mean: 1, std: 0.2", 1.0, 0.18, 0.22),
        ("name: trunc-normal, std: 0.2", 0.0, 0.16, 0.19),  # 0.88 of it is left
        ("name: xavier-normal", 0.0, 0.14, 0.18),  # (2 / (64 + 16)) ** 0.5
        ("name: xavier-uniform, gain: 2", 0.0, 0.30, 0.34),
        ("name: kaiming-uniform, nonlinearity: tanh", 0.0, 0.19, 0.23),  # 5 / 3 / 64 ** 0.5
        ("name: identity", 1 / 64, 0.12, 0.13),
    ],
)
def test_numbers_have_the_deviation_that_their_name_says(
    told: str, mean: float, low: float, high: float, tmp_path: Path
) -> None:
    weight = begun(tmp_path, f"init={{layers: [{{match: [body.1.weight], {told}}}]}}").weights[
        "body.1.weight"
    ]
    assert low < weight.std(correction=0) < high
    assert weight.mean() == pytest.approx(mean, abs=0.03)


def test_the_seed_decides_what_is_drawn_and_no_strategy(tmp_path: Path) -> None:
    one = begun(tmp_path / "one", RULES)
    other = begun(tmp_path / "other", RULES, "seed=1")
    assert not torch.equal(one.weights["body.1.weight"], other.weights["body.1.weight"])
    changes = (f"workload={__name__}:Net", RULES, "optimizer={name: sgd, lr: 1.0e-30}", "stop.steps=1")
    two = job(QUICK, *changes, "strategy.name=fsdp", "resources.workers=2")
    assert_equal(with_workers(two, tmp_path / "two").weights, one.weights)


def test_a_resumed_run_draws_nothing(tmp_path: Path) -> None:
    text = (*MINE, RULES, "checkpoint.every=3 steps")
    whole = train(job(QUICK, *text), tmp_path / "whole")
    train(job(QUICK, *text), tmp_path / "half", stop_after=6)
    rest = train(job(QUICK, *text), tmp_path / "half")
    assert_equal(rest.weights, whole.weights)
    assert not any("begins" in note for note in rest.notes)


def test_weights_of_a_file_stay_and_the_rest_is_drawn(before: tuple[Path, Trained], tmp_path: Path) -> None:
    torch.save(before[1].weights, tmp_path / "w.pt")
    rule = "layers: [{match: ['*.weight'], name: constant, value: 3}]"
    found = begun(tmp_path, f"init={{file: w.pt, leave: ['head.*'], {rule}}}").weights
    assert torch.equal(found["body.1.weight"], before[1].weights["body.1.weight"])
    assert (found["head.weight"] == 3).all()


@pytest.mark.parametrize(
    ("init", "said"),
    [
        (
            "layers: [{match: [hed.*], name: normal}]",
            r"init.layers\[0\]: no parameter is called 'hed.\*'. Known",
        ),
        (
            "layers: [{match: ['*'], name: normal}, {match: [head.bias], name: constant}]",
            r"init.layers\[1\]: what it matches has its weights already.*: head.bias",
        ),
        (
            "file: w.pt, layers: [{match: ['head.*'], name: normal}]",
            r"init.layers\[0\]: what it matches has its weights already.*: head.weight, head.bias",
        ),
        (
            "layers: [{match: ['head.*'], name: orthogonal}]",
            r"init.layers\[0\]: orthogonal of head.bias: it has the shape \(10,\), and 2 dimensions or more",
        ),
    ],
)
def test_a_rule_that_cannot_be_kept_is_told(
    init: str, said: str, before: tuple[Path, Trained], tmp_path: Path
) -> None:
    torch.save(before[1].weights, tmp_path / "w.pt")
    with pytest.raises(UsageError, match=said):
        begun(tmp_path, f"init={{{init}}}")


def test_what_belongs_to_a_file_wants_one() -> None:
    rule = "layers: [{match: ['*.weight'], name: normal}]"
    with pytest.raises(
        SpecError, match=r"init\.leave: is of a run or a file, and none is named: leave it out"
    ):
        job(QUICK, f"init={{leave: ['head.*'], {rule}}}")
