"""Jobs, sweeps and changes as Python gives them: checked as files are, and told of in words."""

from __future__ import annotations

import enum
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from dlsys.errors import SpecError, UsageError
from dlsys.spec import load, yaml
from dlsys.spec.given import load_job, load_sweep

JOB: dict[str, Any] = {
    "kind": "train",
    "name": "given",
    "workload": "lenet-5",
    "data": {"source": "digits"},
    "batch_size": 64,
    "stop": {"epochs": 1},
}


SWEEP = {"kind": "sweep", "name": "s"}


class Name(enum.StrEnum):
    TRAIN = "train"


def told(given: Any, changes: Any = None) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load_sweep(given, changes) if given == SWEEP else load_job(given, changes)
    return str(caught.value).splitlines()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_mapping_is_the_same_job_as_its_file(folder: Path) -> None:
    (folder / "job.yaml").write_text(yaml.dump(JOB))
    changes = {"optimizer": {"name": "adam"}, "optimizer.lr": 0.02, "expect": {"valid/accuracy": ">= 0.5"}}
    written = load(
        "job.yaml", ["optimizer={name: adam}", "optimizer.lr=0.02", "expect.valid/accuracy=>= 0.5"]
    )
    for given in (JOB, "job.yaml", folder / "job.yaml"):
        found = load_job(given, changes)
        assert found.job == written.job
        assert found.folder == folder
    assert load_job(JOB).source == (folder / "job.yaml").read_text()


def test_ready_names_are_known() -> None:
    assert load_job("quickstart", {"batch_size": 32}).job.model_dump()["batch_size"] == 32
    assert load_sweep("tune/lenet5_asha", {"trials": 5}).sweep.trials == 5


def test_what_python_has_for_plain_values_is_taken() -> None:
    given = MappingProxyType({**JOB, "kind": Name.TRAIN, "batch_size": np.int64(32)})
    changes = {
        "optimizer": {"name": "adam", "betas": (0.8, np.float64(0.9))},
        "optimizer.lr": Fraction(1, 4),
        "data": {"source": "csv", "path": Path("sub") / "smile-😀-\u2028.csv", "target": "x"},
    }
    (Path.cwd() / "sub").mkdir()
    Path("sub/smile-😀-\u2028.csv").write_text("x,y\n1,2\n3,4\n")
    found = load_job(given, {**changes, "workload": "torch.nn:Linear", "model": {"in_features": 1}}).job
    plain = found.model_dump(mode="json")
    assert plain["kind"] == "train"
    assert plain["batch_size"] == 32
    assert plain["optimizer"]["betas"] == [0.8, 0.9]
    assert plain["optimizer"]["lr"] == 0.25
    assert plain["data"]["path"] == "sub/smile-😀-\u2028.csv"


@pytest.mark.parametrize(
    ("given", "changes", "lines"),
    [
        ({**JOB, "batch_size": "many"}, {}, ["job: batch_size: must be a whole number of at least 1, or"]),
        (JOB, {"stop.epochs": "x"}, ["changes: stop.epochs: must be"]),
        ({**JOB, "sed": 1}, {"stop.epochs": -1}, ["changes: stop.epochs: must be", "job: sed: unknown key"]),
        ({}, {}, ["job: kind: is required and missing: 'train' or"]),
        (SWEEP, {}, ["sweep: job: is required", "sweep: metric:", "sweep: space:"]),
        ({**JOB, "batch_size": np.zeros(1)}, {}, ["job: batch_size: is a ndarray: say what a file could"]),
        ({**JOB, "stop": {3: 4}}, {}, ["job: stop: has the key 3: keys are text"]),
        (JOB, {"optimizer.lr": float("nan")}, ["changes: optimizer.lr: nan is not a finite number"]),
        (JOB, {"optimizer.lr=3": 3}, ["changes: 'optimizer.lr=3' is no dotted path: it has a ="]),
        (JOB, {"": 3}, ["changes: '=3' is not an override"]),
        (JOB, {"batch_size.x": 3}, ["changes: batch_size: is 64 and has no 'x' inside"]),
        (JOB, ["optimizer.lr=3"], ["changes: a mapping of dotted paths to values is wanted"]),
        (
            {**JOB, "optimizer": {"name": "sgd"}, "schedule": {"name": "one-cycle", "max_lr": 0.1}},
            {"optimizer.lr": 0.1},
            ["changes: optimizer.lr: has no effect, for the schedule sets lr itself: say schedule.max_lr"],
        ),
    ],
)
def test_mistakes_name_their_place_in_words(given: Any, changes: Any, lines: list[str]) -> None:
    found = told(given, changes)
    assert [line for line in lines if not any(one.startswith(line) for one in found)] == []


def test_in_a_file_they_still_have_lines(folder: Path) -> None:
    (folder / "job.yaml").write_text(yaml.dump({**JOB, "batch_size": "many"}))
    (problem,) = told("job.yaml")
    assert problem.startswith("job.yaml:6: batch_size: ")


def test_what_holds_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    (problem,) = told({**JOB, "regularize": endless})
    assert problem.endswith("nested deeper than 32 levels")


def test_neither_file_nor_mapping() -> None:
    with pytest.raises(UsageError, match="a job is a file's path, a ready name or a mapping, got 3"):
        load_job(3)  # type: ignore[arg-type]
