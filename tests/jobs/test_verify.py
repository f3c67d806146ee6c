"""`dlsys verify`: what it proves, what it refuses to call proof, what it leaves in MLflow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from runner import Folder

from dlsys.jobs.verify import cases


@pytest.mark.ray
def test_agreement_is_shown_and_tracked(folder: Folder) -> None:
    done = folder.dlsys("verify", "quickstart", "--strategies", "ddp", "--steps", "6", "--json")
    assert done.code == 0, done.err
    reference, row = json.loads(done.out)["rows"]
    assert (reference["strategy"], reference["verdict"]) == ("single", "reference")
    assert (row["strategy"], row["workers"], row["verdict"]) == ("ddp", 2, "agrees")
    assert row["loss"] < 1e-5
    assert row["weight"] < 1e-4
    assert row["sent_bytes"] > 0
    assert len(row["peak_memory_mb"]) == 2
    by_id = {run.data.tags["dlsys.run_id"]: run for run in folder.mlflow_runs()}
    parent = by_id.pop(json.loads(done.out)["run"])
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["difference/loss/ddp x2"] == row["loss"]
    assert by_id.keys() == {reference["run"], row["run"]}
    assert {run.data.tags["mlflow.parentRunId"] for run in by_id.values()} == {parent.info.run_id}
    folder.assert_alone()


@pytest.mark.ray
def test_disagreement_ends_with_1(folder: Folder) -> None:
    """Workers draw their own dropout masks: that is not what one worker computes."""
    done = folder.dlsys("verify", "job.yaml", "--strategies", "ddp", "--steps", "4")
    assert done.code == 1
    assert "ddp × 2: loss differs from step 1" in done.out
    assert "1 of 1 do not compute what one worker computes" in done.err
    parent = next(r for r in folder.mlflow_runs() if r.data.tags["dlsys.kind"] == "verify")
    assert parent.info.status == "FAILED"
    assert parent.data.tags["dlsys.cause"] == "not as one worker: ddp × 2"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--strategies", "dpp"), "unknown strategy 'dpp'. Did you mean 'ddp'?"),
        (("--workers", "two"), "--workers: 'two' is not numbers"),
        (("--workers", "0"), "--workers: '0' is not numbers"),
        (("--strategies", "ddp:bucket=3"), "strategy.bucket: "),
        (("--strategies", "pipeline:schedule=gpipe", "--workers", "8"), "the model has 5 (conv1"),
    ],
)
def test_what_cannot_be_verified_is_refused_at_once(
    arguments: tuple[str, ...], says: str, folder: Folder
) -> None:
    done = folder.dlsys("verify", "quickstart", *arguments)
    assert done.code == 2
    assert says in done.err
    assert not (folder.path / ".dlsys" / "runs").exists()


@pytest.fixture
def job(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job file of a user's workload, in the folder that holds both."""
    monkeypatch.chdir(folder.path)
    return folder.path / "job.yaml"


def test_all_are_those_that_the_card_allows(job: Path) -> None:
    found = cases(job, (), "all", 5, [2], cpus=2.0)
    assert [case.label for case in found] == ["single", "ddp", "ring", "ps", "fsdp", "zero"]
    assert all(case.loaded for case in found)


def test_of_all_a_mesh_is_a_case_of_its_own(job: Path) -> None:
    """Where there are workers enough for it, and the card allows what it is made of."""
    overrides = ("workload=lenet-5", "data={source: digits}")
    mesh = "tensor:size=2+data=shard"
    found = [case for case in cases(job, overrides, "all", 5, [2, 4], cpus=2.0) if case.label == mesh]
    assert [(case.workers, case.loaded.job.strategy.data) for case in found if case.loaded] == [(4, "shard")]
    assert len(found) == 1


def test_of_all_those_that_a_rule_refuses_are_named(job: Path) -> None:
    """64 rows cannot be shared by 3 workers; nothing else is lost for that."""
    found = cases(job, (), "all", 5, [2, 3], cpus=2.0)
    assert {case.workers for case in found if case.loaded} == {1, 2}
    assert all("use a multiple of 3" in case.refusal for case in found if case.workers == 3)


def test_a_strategy_of_the_file_keeps_its_options(job: Path) -> None:
    overrides = ("strategy={name: ddp, bucket_mb: 3}", "resources.workers=2")
    found = cases(job, overrides, "ddp,zero:stage=3", 5, [2], cpus=2.0)
    single, ddp, zero = (case.loaded.job.strategy for case in found if case.loaded)
    assert single.name == "single"
    assert ddp.bucket_mb == 3
    assert (zero.name, zero.stage) == ("zero", 3)


def test_an_elastic_job_has_the_workers_of_each_case(job: Path) -> None:
    overrides = ("failure={elastic: {min: 2, max: 4}, hang_after: 90}", "resources.workers=2")
    found = [
        case.loaded.training for case in cases(job, overrides, "ddp", 5, [2, 8], cpus=2.0) if case.loaded
    ]
    assert [each.resources.workers for each in found] == [1, 2, 8]
    assert all(each.failure.elastic is None and each.failure.hang_after == 90 for each in found)


@pytest.mark.ray
def test_what_only_the_data_tells_is_refused_and_no_failure(folder: Folder) -> None:
    """Ten classes cannot be shared by four workers; the file does not say how many there are."""
    overrides = ("workload=softmax-regression", "checkpoint={}")
    done = folder.dlsys(
        "verify", "job.yaml", *overrides, "--strategies", "tensor", "--workers", "4", "--steps", "2", "--json"
    )
    assert done.code == 0, done.err
    row = json.loads(done.out)["rows"][1]
    assert row["verdict"] == "refused"
    assert "4 workers cannot share the 10 outputs" in row["why"]
