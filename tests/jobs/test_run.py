"""`dlsys run` with one worker: the whole way from a file to MLflow, and every bad end."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from harness import assert_equal
from runner import Folder

STEPS = 69  # 3 epochs of 23 steps


@pytest.mark.usefixtures("interpreters")
def test_a_run_is_trained_and_tracked(folder: Folder) -> None:
    done = folder.dlsys("run", "job.yaml", "--json", "expect={valid/accuracy: '>= 0.5'}")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert (result["status"], result["step"], result["attempts"]) == ("FINISHED", STEPS, 1)
    (run,) = folder.mlflow_runs()
    assert run.info.status == "FINISHED"
    assert run.info.run_name == result["run"] == folder.run.id
    assert run.data.params["optimizer.lr"] == "0.1"
    for tag in ("dlsys.version", "version.torch", "hardware.cpus", "dlsys.command", "mlflow.source.name"):
        assert run.data.tags[tag], tag
    for name in ("train/loss", "valid/accuracy", "test/accuracy", "perf/samples_per_second"):
        assert name in run.data.metrics
    for name in ("peak_memory_mb", "machine_recv_gbit", "machine_transmit_gbit"):
        assert f"system/rank0/{name}" in run.data.metrics
    split = [run.data.metrics[f"perf/{part}_seconds"] for part in ("data", "compute", "communication")]
    assert sum(split) == pytest.approx(run.data.metrics["perf/step_seconds"], rel=1e-6)
    history = folder.history("train/loss")
    assert history == dict.fromkeys(range(1, STEPS + 1), 1)
    artifacts = {item.path for item in folder.store().client.list_artifacts(run.info.run_id)}
    assert {"job.yaml", "spec.yaml", "logs"} <= artifacts
    folder.assert_alone()


def test_a_result_below_expect_is_a_failure(folder: Folder) -> None:
    done = folder.dlsys("run", "job.yaml", "expect={valid/accuracy: '> 0.999'}", "stop.epochs=1")
    assert done.code == 1
    assert "expected > 0.999" in done.err
    (run,) = folder.mlflow_runs()
    assert run.info.status == "FAILED"
    assert "expected > 0.999" in run.data.tags["dlsys.cause"]


def test_a_users_error_shows_their_own_lines_alone(folder: Folder) -> None:
    done = folder.dlsys("run", "job.yaml", FAULT="raise", FAULT_STEP="20")
    assert done.code == 1
    assert f'File "{folder.path}/mine.py", line' in done.err
    assert "dlsys: your code raised KeyError: 'oops'" in done.err
    assert "dlsys/train" not in done.err
    assert done.err.index("mine.py") < done.err.index("dlsys: your code")
    (run,) = folder.mlflow_runs()
    assert run.info.status == "FAILED"
    assert "KeyError" in run.data.tags["dlsys.cause"]
    folder.assert_alone()


def test_a_nan_stops_before_it_is_saved(folder: Folder) -> None:
    done = folder.dlsys("run", "job.yaml", FAULT="nan", FAULT_STEP="20")
    assert done.code == 1
    assert "step 20: the gradient of 1.weight is not finite" in done.err
    assert folder.history("train/loss") == dict.fromkeys(range(1, 20), 1)
    weights = folder.weights()
    assert all(bool(torch.isfinite(weight).all()) for weight in weights.values())
    assert (folder.run.checkpoints / "step-0000000015").is_dir()


def test_a_hang_is_named_and_its_stacks_are_kept(folder: Folder) -> None:
    done = folder.dlsys("run", "job.yaml", "failure.hang_after=2", FAULT="hang", FAULT_STEP="20")
    assert done.code == 1
    assert "rank 0 is in step 20, at" in done.err
    assert "mine.py" in done.err
    (stack,) = folder.run.stacks.glob("attempt-*/rank-0.txt")
    assert "in fault" in stack.read_text()
    folder.assert_alone(20)
    (run,) = folder.mlflow_runs()
    assert run.info.status == "FAILED"


@pytest.mark.usefixtures("interpreters")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_ends(number: int, code: int, folder: Folder) -> None:
    process = folder.start("run", "job.yaml", "checkpoint.every='1000 steps'", STEP_SECONDS="0.05")
    folder.wait_for(lambda: folder.step() >= 8)
    process.send_signal(number)
    done = folder.finish(process)
    assert done.code == code
    assert done.seconds < 10
    folder.assert_alone(20)  # whoever interrupts waits 5 s for MLflow at most; the writer goes on
    (run,) = folder.mlflow_runs()
    assert run.info.status == "KILLED"
    saved = int(folder.run.checkpoints.glob("step-*").__next__().name[-10:])
    assert saved >= 8, "the last checkpoint is of the step at which it was asked to end"


def test_a_second_signal_ends_at_once(folder: Folder) -> None:
    process = folder.start("run", "job.yaml", FAULT="hang", FAULT_STEP="8")
    folder.wait_for(lambda: folder.step() >= 7)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    done = folder.finish(process)
    assert done.code == 130
    folder.assert_alone()


@pytest.mark.usefixtures("interpreters")
def test_killed_and_resumed_equals_uninterrupted(folder: Folder, tmp_path: Path) -> None:
    """kill -9 of the driver, then --resume: the same weights, one MLflow run, each step once."""
    (tmp_path / "whole").mkdir()
    whole = Folder(tmp_path / "whole")
    assert whole.dlsys("run", "job.yaml").code == 0

    process = folder.start("run", "job.yaml", STEP_SECONDS="0.03")
    folder.wait_for(lambda: folder.step() >= 33)
    process.kill()
    folder.finish(process)
    run_id = folder.run.id
    folder.assert_alone(20)
    (run,) = folder.mlflow_runs()
    assert run.info.status == "FAILED", "the writer outlives its driver and tells of its end"
    assert run.data.tags["dlsys.cause"] == "the driver process died"

    done = folder.dlsys("run", "--resume", run_id[:8])
    assert done.code == 0, done.err
    assert_equal(whole.weights(), folder.weights())
    (run,) = folder.mlflow_runs()
    assert run.info.status == "FINISHED"
    for name in ("train/loss", "valid/accuracy"):
        assert folder.history(name) == whole.history(name), name
        assert set(folder.history(name).values()) == {1}
    folder.assert_alone()


def test_a_new_run_never_resumes_an_old_one(folder: Folder) -> None:
    for _ in range(2):
        assert folder.dlsys("run", "job.yaml", "stop.steps=3").code == 0
    assert len(folder.mlflow_runs()) == 2
    assert "continues from" not in folder.err


def test_a_run_has_one_driver(folder: Folder) -> None:
    process = folder.start("run", "job.yaml", STEP_SECONDS="0.1")
    folder.wait_for(lambda: folder.step() >= 2)
    second = Folder(folder.path)
    done = second.dlsys("run", "--resume", "mine")
    assert done.code == 2
    assert f"is being run by process {process.pid}" in done.err
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130


def test_resume_can_go_further_but_not_elsewhere(folder: Folder) -> None:
    assert folder.dlsys("run", "job.yaml", "stop.epochs=1").code == 0
    done = folder.dlsys("run", "--resume", "mine", "batch_size=32")
    assert done.code == 2
    assert "batch_size cannot change when a run is resumed" in done.err
    assert folder.dlsys("run", "--resume", "mine", "stop.epochs=2").code == 0
    assert len(folder.mlflow_runs()) == 1
    assert max(folder.history("train/loss")) == 46


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["resources.cpus=64"], "1 workers × 64 CPUs"),
        (["batch_size=5000"], "5000 rows, but the training set has 1437"),
        (
            ["expect={valid/acuracy: '> 0'}"],
            "measures no 'acuracy' (valid/acuracy). Did you mean 'accu",
        ),
        (["checkpoint.best=valid/f1"], "measures no 'f1'"),
        (["model={depth: 3}"], "model.depth"),
        (["workload=mine:Nine"], "defines no 'Nine'. Did you mean 'Mine'?"),
        (["data={source: csv, path: nowhere.csv, target: y}"], "nowhere.csv"),
    ],
)
def test_what_only_the_start_can_know_is_told_clearly(
    overrides: list[str], message: str, folder: Folder
) -> None:
    done = folder.dlsys("run", "job.yaml", *overrides)
    assert done.code in (1, 2)
    assert message in done.err
    assert "Traceback" not in done.err
    folder.assert_alone()


def test_an_unwritable_place_is_told_before_anything_starts(folder: Folder) -> None:
    (folder.path / "file").write_text("")
    done = folder.dlsys("run", "job.yaml", DLSYS_HOME=str(folder.path / "file" / "inside"))
    assert done.code == 2
    assert "cannot be made" in done.err
    assert "DLSYS_HOME" in done.err


def test_a_plain_factory_is_a_workload(folder: Folder) -> None:
    (folder.path / "net.py").write_text(
        "from torch import nn\n"
        "def net(hidden=8):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))\n"
    )
    done = folder.dlsys("run", "job.yaml", "workload=net:net", "model={hidden: 32}")
    assert done.code == 0, done.err
    assert folder.mlflow_runs()[0].data.metrics["valid/accuracy"] > 0.5


def test_secrets_are_not_logged(folder: Folder) -> None:
    secret = "hf_abcdefghijklmnopqrstuvwxyz0123"
    uri = "http://user:opensesame@127.0.0.1:9"
    done = folder.dlsys(
        "run", "job.yaml", "stop.steps=2", f"tracking.experiment={secret}", API_TOKEN="opensesame"
    )
    assert done.code == 0, done.err
    (run,) = folder.mlflow_runs()
    logged = json.dumps([run.data.params, run.data.tags])
    assert secret not in logged
    from dlsys.track.mask import mask

    assert "opensesame" not in mask("tracking.uri", uri)
    assert os.environ.get("API_TOKEN") is None
