"""`dlsys prove`: a job against what it expects and against its baseline, and what it leaves in MLflow."""

from __future__ import annotations

import json
import math

import pytest
from runner import JOB, Folder

from dlsys.errors import RunError
from dlsys.jobs.prove import Proof, Side, _compare, load_both
from dlsys.jobs.run import prepare

# Of a job that reaches about 0.9 in three epochs; with a rate as small as this one it stays near chance.
BASELINE = """
expect: {valid/accuracy: ">= 0.5"}
baseline:
  set: {optimizer: {name: sgd, lr: 1.0e-5}}
  by: {valid/accuracy: 0.3, test/loss: 0.5}
"""


@pytest.fixture
def folder(folder: Folder) -> Folder:
    (folder.path / "job.yaml").write_text(JOB + BASELINE)
    return folder


def test_a_job_that_beats_its_baseline(folder: Folder) -> None:
    done = folder.dlsys("prove", "job.yaml", "--json")
    assert done.code == 0, done.err
    proof = json.loads(done.out)
    mine, other = proof["job"]["metrics"], proof["baseline"]["metrics"]
    assert proof["missed"] == []
    assert proof["better"] == {
        "valid/accuracy": pytest.approx(mine["valid/accuracy"] - other["valid/accuracy"]),
        "test/loss": pytest.approx(other["test/loss"] - mine["test/loss"]),
    }
    assert proof["baseline"]["changes"] == ['optimizer={"name": "sgd", "lr": 1e-05}']
    by_id = {run.data.tags["dlsys.run_id"]: run for run in folder.mlflow_runs()}
    parent = by_id.pop(proof["run"])
    assert (parent.info.status, parent.data.tags["dlsys.kind"]) == ("FINISHED", "prove")
    assert parent.data.metrics["better/test/loss"] == proof["better"]["test/loss"]
    assert by_id.keys() == {proof["job"]["run"], proof["baseline"]["run"]}
    assert {run.data.tags["mlflow.parentRunId"] for run in by_id.values()} == {parent.info.run_id}
    assert by_id[proof["baseline"]["run"]].data.params["optimizer.lr"] == "1e-05"
    assert {run.data.params["seed"] for run in by_id.values()} == {"0"}
    folder.assert_alone()


def test_one_that_falls_short_of_both_ends_with_1_and_says_all_figures(folder: Folder) -> None:
    overrides = ("stop.epochs=1", "expect={valid/accuracy: '> 0.999'}", "baseline.by={valid/accuracy: 0.99}")
    done = folder.dlsys("prove", "job.yaml", *overrides)
    assert done.code == 1
    assert ", expected > 0.999; " in done.err
    assert ", expected better by 0.99 or more" in done.err
    header, row = done.out.splitlines()
    assert header.split() == ["METRIC", "RESULT", "EXPECTED", "BASELINE", "BETTER", "BY"]
    name, result, _, _, other, better = row.split()
    assert name == "valid/accuracy"
    assert float(better) == pytest.approx(float(result) - float(other), abs=1e-3)
    (parent,) = [run for run in folder.mlflow_runs() if run.data.tags["dlsys.kind"] == "prove"]
    assert parent.info.status == "FAILED"
    assert "expected better by 0.99" in parent.data.tags["dlsys.cause"]


def test_a_diverging_baseline_is_beaten(folder: Folder) -> None:
    wild = "{optimizer: {name: sgd, lr: 1e+37}}"
    done = folder.dlsys("prove", "job.yaml", f"baseline.set={wild}", "--json")
    assert done.code == 0, done.err
    proof = json.loads(done.out)
    assert proof["baseline"]["diverged"]
    assert proof["better"] == {}


@pytest.mark.parametrize(
    ("mine", "other", "least", "enough"),
    [
        ({"test/accuracy": 0.97}, {"test/accuracy": 0.72}, 0.25, True),
        ({"test/accuracy": 0.97}, {"test/accuracy": 0.73}, 0.25, False),
        ({"test/accuracy": 0.72}, {"test/accuracy": 0.97}, 0.0, False),
        ({"test/accuracy": 0.97}, {"test/accuracy": 0.97}, 0.0, True),
        ({"test/loss": 0.5}, {"test/loss": 2.0}, 1.5, True),
        ({"test/loss": 2.0}, {"test/loss": 0.5}, 0.0, False),
        ({"valid/f1": 0.5}, {"valid/f1": 0.4}, 0.05, True),
        ({"valid/error": 0.5}, {"valid/error": 0.4}, 0.0, False),
    ],
)
def test_better_is_what_the_metric_or_else_expect_says(
    mine: dict[str, float], other: dict[str, float], least: float, enough: bool, folder: Folder
) -> None:
    (name,) = mine
    own = not name.startswith("test/")
    bound = {"valid/f1": "> 0.3", "valid/error": "<= 1"}.get(name)
    told = [
        "workload=lenet-5" if not own else "workload=torch.nn:Flatten",
        f"expect={{{name}: '{bound}'}}" if bound else "expect={}",
        f"baseline.by={{{name}: {least}}}",
    ]
    job = load_both(folder.path / "job.yaml", told)[0].training
    proof = Proof("p", Side("a", mine, 1.0), Side("b", other, 1.0))
    _compare(proof, job)
    assert bool(proof.missed) != enough
    assert proof.better[name] >= least or not enough or math.isclose(proof.better[name], least)


def test_a_baseline_without_a_figure_is_beaten(folder: Folder) -> None:
    job = load_both(folder.path / "job.yaml", ["workload=lenet-5", "baseline.by={test/loss: 0.5}"])[
        0
    ].training
    proof = Proof("p", Side("a", {"test/loss": 0.5}, 1.0), Side("b", {"test/loss": math.nan}, 1.0))
    _compare(proof, job)
    assert proof.baseline is not None
    assert (proof.missed, proof.better, proof.baseline.diverged) == ([], {}, True)


def test_of_an_own_metric_somebody_must_say_which_value_is_the_best(folder: Folder) -> None:
    """A run alone may leave `expect` out, as it always may."""
    done = folder.dlsys("prove", "job.yaml", "expect={}")
    assert done.code == 2
    assert "baseline.by.valid/accuracy: only you know which value is the best" in done.err
    assert "test/loss" not in done.err
    assert folder.dlsys("check", "job.yaml", "expect={}").code == 0


def test_what_was_never_measured_is_no_proof(folder: Folder) -> None:
    job = load_both(folder.path / "job.yaml", ["workload=lenet-5"])[0].training
    with pytest.raises(RunError, match=r"baseline\.by\.valid/accuracy: was never measured"):
        _compare(Proof("p", Side("a", {}, 1.0), Side("b", {"valid/accuracy": 0.1}, 1.0)), job)


def test_a_baseline_is_the_job_with_the_command_lines_changes(folder: Folder) -> None:
    """It expects nothing, and has no baseline of its own. Of what a run keeps of its job it is the same."""
    loaded, other = load_both(folder.path / "job.yaml", ["workload=lenet-5", "stop.epochs=1", "seed=4"])
    assert other is not None
    assert (other.training.stop.epochs, other.training.seed) == (1, 4)
    assert (other.training.expect, other.training.baseline) == ({}, None)
    same = {"optimizer", "expect", "baseline"}
    assert other.job.model_dump(exclude=same) == loaded.job.model_dump(exclude=same)
    again, kept = load_both(prepare(loaded).spec, [])
    assert kept is not None
    assert (again.job, kept.job) == (loaded.job, other.job)
