from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dlsys.errors import UsageError, WorkloadError
from dlsys.own.frames import user_traceback
from dlsys.spec.rows import Shape
from dlsys.zoo.imported import PlainModel
from dlsys.zoo.load import load_workload
from dlsys.zoo.vision.lenet5.model import LeNet5

CLASSES = Shape(row={"features": (4,), "label": ()}, classes=3)
NUMBER = Shape(row={"features": (4,), "target": ()})

MODULE = """
    from functools import partial
    from torch import nn
    from dlsys.spec.section import Count, Section
    from dlsys.zoo.workload import Workload

    class Net(nn.Module):
        def __init__(self, hidden=8, outputs=3):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
        def forward(self, x):
            return self.net(x)

    def make(outputs=3):
        return Net(outputs=outputs)

    linear = partial(nn.Linear, 4, 3)
    built = Net()
    number = 3
    class Other: pass
    def nothing():
        return None

    class Options(Section):
        units: Count = 4
        must: Count

    class Mine(Workload):
        Options = Options
        def build(self):
            return nn.Linear(4, self.options.units)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Writes a module of the user's into the working directory; gives its name back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    names: list[str] = []

    def write(source: str) -> str:
        name = f"users_{len(names)}"
        names.append(name)
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        return name

    yield write
    for name in names:
        sys.modules.pop(name, None)


def test_a_catalogue_name_is_loaded_with_checked_options() -> None:
    shape = Shape(row={"image": (1, 8, 8), "label": ()}, classes=10)
    workload = load_workload("lenet-5", {"width": 2.0}, shape)
    assert isinstance(workload, LeNet5)
    assert workload.options.width == 2.0
    with pytest.raises(UsageError, match=r"model\.widht: unknown key.* Did you mean 'width'\?"):
        load_workload("lenet-5", {"widht": 2.0}, shape)
    with pytest.raises(UsageError, match="Did you mean 'lenet-5'"):
        load_workload("lenet", {}, shape)


@pytest.mark.parametrize("target", ["Net", "make", "linear"])
def test_a_model_of_the_users_is_trained_as_it_is(module: Any, target: str) -> None:
    workload = load_workload(f"{module(MODULE)}:{target}", {}, CLASSES)
    assert isinstance(workload, PlainModel)
    assert workload.metrics == {"accuracy": "max"}
    model = workload.build()
    batch = {"label": torch.tensor([0, 2]), "features": torch.randn(2, 4), "key": torch.arange(2)}
    outputs, _ = workload.forward(model, batch, None)
    expected = nn.functional.cross_entropy(model(batch["features"]), batch["label"])
    torch.testing.assert_close(workload.objective(outputs, batch).value, expected)


def test_options_are_the_factorys_arguments(module: Any) -> None:
    name = module(MODULE)
    model = load_workload(f"{name}:Net", {"hidden": 5}, CLASSES).build()
    assert next(model.parameters()).shape == (5, 4)
    with pytest.raises(UsageError, match="unexpected keyword argument 'hiden'"):
        load_workload(f"{name}:Net", {"hiden": 5}, CLASSES)


def test_builds_are_fresh_and_follow_the_seed(module: Any) -> None:
    workload = load_workload(f"{module(MODULE)}:make", {}, CLASSES)
    weights = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        weights.append(next(workload.build().parameters()))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_float_label_is_a_probability_and_a_target_a_number(module: Any) -> None:
    name = module(MODULE)
    logits = torch.tensor([[3.0], [-2.0], [-1.0]])
    yes_no = load_workload(f"{name}:make", {"outputs": 1}, CLASSES)
    batch = {"label": torch.tensor([1.0, 0.0, 1.0])}
    expected = nn.functional.binary_cross_entropy_with_logits(logits[:, 0], batch["label"])
    torch.testing.assert_close(yes_no.objective(logits, batch).value, expected)
    sums = {**yes_no.measure(logits, batch), "rows": torch.tensor(3.0)}
    assert yes_no.summarize(sums) == pytest.approx({"loss": float(expected), "accuracy": 2 / 3})

    number = load_workload(f"{name}:make", {"outputs": 1}, NUMBER)
    batch = {"target": torch.tensor([3.0, 0.0, -1.0])}
    torch.testing.assert_close(number.objective(logits, batch).value, torch.tensor(4 / 3))
    assert number.metrics == {}
    assert number.measure(logits, batch).keys() == {"loss"}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("built", "already built"),
        ("number", "must be a Workload class"),
        ("Other", "must be a Workload class"),
    ],
)
def test_what_is_no_model_is_refused(module: Any, target: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_workload(f"{module(MODULE)}:{target}", {}, CLASSES)


def test_a_factory_must_return_a_model(module: Any) -> None:
    with pytest.raises(WorkloadError, match=r"must return an nn\.Module, got NoneType"):
        load_workload(f"{module(MODULE)}:nothing", {}, CLASSES).build()


def test_a_plain_model_needs_an_input_and_a_label() -> None:
    with pytest.raises(WorkloadError, match="this source has: tokens, targets"):
        PlainModel(nn.Identity, {}, Shape(row={"tokens": (8,), "targets": (8,)}))


def test_a_workload_of_the_users_checks_its_own_options(module: Any) -> None:
    name = module(MODULE)
    assert load_workload(f"{name}:Mine", {"must": 1}, CLASSES).options.units == 4
    with pytest.raises(UsageError) as caught:
        load_workload(f"{name}:Mine", {"units": 0, "unit": 1}, CLASSES)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert any(line.startswith("model.units: ") and line.endswith("got 0") for line in lines)
    assert "model.must: is required and missing: a whole number of at least 1" in lines
    told = f"model.unit: unknown key: {name}:Mine has no 'unit'. Did you mean 'units'? Known: must, units"
    assert told in lines


def test_a_missing_module_or_name_is_told(module: Any) -> None:
    name = module(MODULE)
    with pytest.raises(WorkloadError, match="importing no_such_module failed: ModuleNotFoundError"):
        load_workload("no_such_module:Net", {}, CLASSES)
    with pytest.raises(WorkloadError, match=r"has no 'Nett'\. Did you mean"):
        load_workload(f"{name}:Nett", {}, CLASSES)


def test_an_error_at_import_shows_the_users_frames_alone(module: Any) -> None:
    name = module("def helper():\n    return {}['lost']\n\nhelper()\n")
    with pytest.raises(WorkloadError, match="KeyError: 'lost'") as caught:
        load_workload(f"{name}:Net", {}, CLASSES)
    shown = caught.value.traceback
    files = [line for line in shown.splitlines() if line.startswith("  File ")]
    assert len(files) == 2
    assert all(f"{name}.py" in line for line in files)
    assert shown.endswith("KeyError: 'lost'\n")


def test_a_syntax_error_shows_its_line(module: Any) -> None:
    name = module("x = 1\ndef broken(:\n")
    with pytest.raises(WorkloadError, match="SyntaxError") as caught:
        load_workload(f"{name}:Net", {}, CLASSES)
    assert f"{name}.py" in caught.value.traceback
    assert "line 2" in caught.value.traceback


def test_an_error_without_the_users_code_has_no_traceback_of_theirs() -> None:
    with pytest.raises(WorkloadError, match="ModuleNotFoundError") as caught:
        load_workload("no_such_module:Net", {}, CLASSES)
    assert caught.value.traceback == ""


def test_torchs_frames_are_left_out_of_causes_too() -> None:
    def inner() -> None:
        nn.Linear(2, 2)(torch.zeros(3))

    def outer() -> None:
        try:
            inner()
        except RuntimeError as error:
            raise ValueError("mine") from error

    with pytest.raises(ValueError, match="mine") as caught:
        outer()
    shown = user_traceback(caught.value)
    files = [line for line in shown.splitlines() if line.strip().startswith("File ")]
    assert files
    assert all(Path(__file__).name in line for line in files)
    assert "RuntimeError" in shown
    assert "direct cause" in shown
