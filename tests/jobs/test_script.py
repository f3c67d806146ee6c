"""`dlsys run -- python train.py`: a script that knows nothing of dlsys, from the command line to MLflow."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from runner import Folder
from scripts import TRAIN

from dlsys.errors import UsageError
from dlsys.jobs.launch.script import program
from dlsys.paths import RunPaths


def alone() -> tuple[float, dict[str, Any]]:
    """What TRAIN computes without any other: the loss of its last step, and its weights."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        rows, labels = torch.randn(64, 8), torch.randn(64, 1)
        model = torch.nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(6):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(rows), labels)
        loss.backward()
        optimizer.step()
    return loss.item(), model.state_dict()


def script(folder: Folder, text: str, name: str = "train.py") -> None:
    (folder.path / name).write_text(f"import json, os, signal, subprocess, sys, time\n{text}")


def everything(folder: Folder) -> list:
    """Every run in the store, also those that are not dlsys's."""
    client = folder.store().client
    found = client.search_experiments()
    return client.search_runs([experiment.experiment_id for experiment in found])


def log(folder: Folder, rank: int) -> str:
    return folder.run.log(rank).read_text()


@pytest.mark.slow
def test_a_killed_rank_is_retried_and_ddp_is_one_workers_training(folder: Folder) -> None:
    """Two real processes over gloo: a killed rank, a retry from the script's own checkpoint, one MLflow run
    with each step once; and the weights are those of one process that was left alone."""
    import torch

    loss, weights = alone()
    (folder.path / "train.py").write_text(TRAIN)
    given = ["--workers", "2", "failure.retries=1", "expect={loss: '< 100'}"]
    done = folder.dlsys("run", "--json", *given, "--", "python", "train.py", "die")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert (result["status"], result["attempts"], result["step"]) == ("FINISHED", 2, 5)
    assert "rank 1 was ended by SIGKILL; attempt 2 of 2 starts all workers anew" in done.err
    assert "goes on from step 3, restart 1" in done.err

    (run,) = everything(folder)
    assert (run.info.status, run.info.run_name) == ("FINISHED", folder.run.id)
    assert run.data.params["lr"] == "0.1"
    assert folder.history("loss") == dict.fromkeys(range(6), 1)
    assert run.data.metrics["loss"] == pytest.approx(loss, rel=1e-5)
    ours = torch.load(folder.run.checkpoints / "last.pt")["model"]
    assert ours.keys() == weights.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, weights[name])
    folder.assert_alone()


def test_every_rank_is_told_what_torchrun_tells_and_nothing_else_is_said(folder: Folder) -> None:
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent

    script(
        folder,
        "json.dump(dict(os.environ), open('told-' + os.environ['RANK'], 'w'))\n"
        "print('rank', os.environ['RANK'], sys.argv[1:], 'out')\n"
        "print('rank', os.environ['RANK'], 'err', file=sys.stderr)\n",
    )
    words = ["--workers", "2", "--name", "mine", "env.SEED='7'", "resources.cpus=0.5"]
    done = folder.dlsys("run", *words, "--", "python", "train.py", "--lr", "0.1")
    assert done.code == 0, done.err
    run = folder.run
    assert done.err.splitlines() == [
        f"run {run.id}",
        "rank 0 ['--lr', '0.1'] out",
        "rank 0 err",
        f"See it:       dlsys ui {run.id}",
        f"Look it up:   dlsys runs show {run.id}",
    ]
    assert re.fullmatch(r"run +mine-\S+\nstatus +FINISHED\ntime .*\n", done.out)
    assert log(folder, 1) == "rank 1 ['--lr', '0.1'] out\nrank 1 err\n"
    names = re.findall(r'^ +"([A-Z_]+)":', inspect.getsource(LocalElasticAgent._start_workers), re.MULTILINE)
    assert {"RANK", "ROLE_WORLD_SIZE", "TORCHELASTIC_RUN_ID"} <= {*names}
    for rank in (0, 1):
        told = json.loads((folder.path / f"told-{rank}").read_text())
        assert {*names} <= told.keys()
        own = {
            "RANK": f"{rank}",
            "LOCAL_RANK": f"{rank}",
            "ROLE_RANK": f"{rank}",
            "GROUP_RANK": "0",
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "ROLE_WORLD_SIZE": "2",
            "TORCHELASTIC_RESTART_COUNT": "0",
            "TORCHELASTIC_MAX_RESTARTS": "0",
            "TORCHELASTIC_RUN_ID": run.id,
            "DLSYS_RUN_ID": run.id,
            "DLSYS_CHECKPOINTS": str(run.checkpoints),
            "MLFLOW_RUN_ID": json.loads(run.mlflow.read_text())["run_id"],
            "MLFLOW_EXPERIMENT_NAME": "default",
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder.path}/.dlsys/mlflow.db",
            "SEED": "7",
        }
        assert {name: told[name] for name in own} == own
    assert folder.mlflow_runs()[0].data.params["command"] == "python train.py --lr 0.1"
    folder.assert_alone()


#: Writes where it is, and what it started, and then waits; a signal is told, too.
WAITS = """
import pathlib
def told(number, frame):
    pathlib.Path(f"ended-{os.environ['RANK']}").write_text(str(number))
    sys.exit(0)
signal.signal(signal.SIGTERM, told)
signal.signal(signal.SIGINT, told)
subprocess.Popen(["sleep", "1000"], start_new_session=True)
open(f"ready-{os.environ['RANK']}", "w").close()
"""


def family(folder: Folder) -> list[psutil.Process]:
    """What works on a run, its writer to MLflow left out: that one may have something to deliver yet."""
    return [p for p in folder.processes() if "dlsys.track.writer" not in p.cmdline()]


def test_a_failing_rank_is_named_with_its_last_lines_and_ends_the_others(folder: Folder) -> None:
    script(
        folder,
        f"{WAITS}\n"
        "if os.environ['RANK'] == '1':\n"
        "    while not os.path.exists('ready-0'): time.sleep(0.01)\n"
        "    print(*range(100), sep='\\n')\n"
        "    sys.exit('the disk is on fire')\n"
        "time.sleep(1000)\n",
    )
    done = folder.dlsys("run", "--workers", "2", "--", "python", "train.py")
    assert done.code == 1
    assert "dlsys: rank 1 ended with exit code 1\n" in done.err
    assert "  99\n  the disk is on fire\n" in done.err
    assert "  5\n" not in done.err, "the last lines are few"
    assert f"All it said: {folder.run.log(1)}" in done.err
    assert (folder.path / "ended-0").read_text() == str(int(signal.SIGTERM))
    assert family(folder) == [], "what a rank started in a session of its own has ended with it"
    (run,) = everything(folder)
    assert (run.info.status, run.data.tags["dlsys.cause"]) == ("FAILED", "rank 1 ended with exit code 1")
    folder.assert_alone()


@pytest.mark.usefixtures("interpreters")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_passed_on_and_nothing_is_left(number: int, code: int, folder: Folder) -> None:
    # Rank 1 does not listen, and is ended by force.
    script(
        folder,
        f"{WAITS}\n"
        "if os.environ['RANK'] == '1':\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "time.sleep(1000)\n",
    )
    process = folder.start("run", "--workers", "2", "--", "python", "train.py")
    folder.wait_for(lambda: all((folder.path / f"ready-{rank}").exists() for rank in (0, 1)))
    process.send_signal(number)
    done = folder.finish(process)
    assert done.code == code
    assert (folder.path / "ended-0").read_text() == str(int(number))
    assert family(folder) == []
    assert "KILLED (interrupted)" in done.out
    assert "dlsys: interrupted" in done.err
    assert "Traceback" not in done.err
    folder.assert_alone(30)
    assert folder.mlflow_runs()[0].info.status == "KILLED"


def test_a_killed_driver_leaves_nothing_and_its_run_goes_on(folder: Folder) -> None:
    """kill -9, then --resume with another command: the same MLflow run, and what the script kept is there."""
    script(
        folder,
        f"{WAITS}\n"
        "kept = pathlib.Path(os.environ['DLSYS_CHECKPOINTS'], 'state')\n"
        "if 'more' in sys.argv:\n"
        "    print('found', kept.read_text())\n"
        "    sys.exit()\n"
        "kept.write_text('my own state')\n"
        "time.sleep(1000)\n",
    )
    process = folder.start("run", "--", "python", "train.py")
    folder.wait_for(lambda: (folder.path / "ready-0").exists())
    folder.wait_for(lambda: any(folder.run.checkpoints.iterdir()))
    writer = psutil.Process(json.loads(folder.run.owner.read_text())["writer"][0])
    assert writer.nice() == psutil.Process().nice(), "it made the run that the script has waited for"
    process.kill()
    folder.finish(process)
    folder.assert_alone(20)
    (run,) = everything(folder)
    assert (run.info.status, run.data.tags["dlsys.cause"]) == ("FAILED", "the driver process died")

    done = folder.dlsys("run", "--resume", folder.run.id, "--", "python", "train.py", "more")
    assert done.code == 0, done.err
    assert "found my own state" in done.err
    (again,) = everything(folder)
    assert (again.info.run_id, again.info.status) == (run.info.run_id, "FINISHED")


def test_whatever_a_script_does_with_mlflow_is_in_one_run(folder: Folder) -> None:
    """Both ranks log without asking who they are, and one says FAILED; the exit codes count."""
    script(
        folder,
        "import mlflow\n"
        "rank = os.environ['RANK']\n"
        "if rank == '0':\n"
        "    mlflow.sklearn.autolog(log_models=False)\n"
        "    from sklearn.linear_model import LogisticRegression\n"
        "    LogisticRegression(C=0.5).fit([[0.0], [1.0]], [0, 1])\n"
        "else:\n"
        "    mlflow.start_run(run_name='my own name')\n"
        "    mlflow.log_param('C', 0.5)\n"
        "    mlflow.log_metric(f'seen/rank{rank}', 3.5, step=7)\n"
        "    mlflow.end_run('FAILED')\n"
        "print('id', mlflow.last_active_run().info.run_id)\n",
    )
    words = ["--workers", "2", "--experiment", "mine"]
    done = folder.dlsys("run", *words, "expect={seen/rank1: '> 3'}", "--", "python", "train.py")
    assert done.code == 0, done.err + log(folder, 1)
    (run,) = everything(folder)
    assert run.info.status == "FINISHED"
    assert (run.data.params["C"], run.data.metrics["seen/rank1"]) == ("0.5", 3.5)
    assert run.data.metrics["training_accuracy_score"] == 1
    assert log(folder, 0).splitlines()[-1] == log(folder, 1).splitlines()[-1] == f"id {run.info.run_id}"
    assert re.search(r"^seen/rank1 +3\.5$", done.out, re.MULTILINE)
    shown = json.loads(folder.dlsys("runs", "show", folder.run.id, "--json").out)
    assert (shown["metrics"]["seen/rank1"], shown["workload"]) == (3.5, "train.py")
    assert "seen/rank1=3.5" in folder.dlsys("runs", "list").out

    script(folder, "import mlflow\nmlflow.set_experiment('other')\nmlflow.start_run()\n")
    done = folder.dlsys("run", "--", "python", "train.py")
    assert done.code == 1
    assert "It calls mlflow.set_experiment: leave that out, or say its name with --experiment." in done.err
    assert len(everything(folder)) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--"], "--: no command follows"),
        (["--", "python", "tarin.py"], "command line: command[1]: no such file: tarin.py in "),
        (["--", "python train.py"], "is one word, and would be looked for as a program of that name"),
        (["lr=3", "--", "python", "train.py"], "command line: lr: unknown key"),
        (["x.yaml", "--", "python", "train.py"], "x.yaml: is no override (key=value)"),
        (["--name", "My Run", "--", "python", "train.py"], "command line: name: 'My Run' is not a name"),
        (["env.RANK='3'", "--", "python", "train.py"], "command line: env.RANK: dlsys sets it itself"),
        (["--address", "h:1", "--", "python", "train.py"], "--address: a script runs on this machine"),
        (["--workers", "2", "job.yaml"], "--workers: is for a command after `--`"),
        (["--workers", "64", "--", "python", "train.py"], "64 workers × 1 CPUs = 64"),
        (["--", "nosuchprogram"], "command: no program 'nosuchprogram' on PATH"),
    ],
)
def test_what_is_wrong_is_told_with_exit_code_2(words: list[str], message: str, folder: Folder) -> None:
    script(folder, "")
    done = folder.dlsys("run", *words)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--"], "--: no command follows"),
        (["--", "python", "tarin.py"], "command line: command[1]: no such file: tarin.py in "),
        (["--env", "RANK=3", "--", "python", "train.py"], "command line: env.RANK: dlsys sets it itself"),
        (["--cpus", "2", "script.yaml"], "--cpus: is for a command after `--`"),
        (["--env", "MLFLOW_RUN_ID=3", "script.yaml"], "env.MLFLOW_RUN_ID: dlsys sets it itself"),
        (["lr=3", "--", "python", "train.py"], "command line: lr: unknown key"),
    ],
)
def test_a_submission_is_checked_alike(words: list[str], message: str, folder: Folder) -> None:
    script(folder, "")
    (folder.path / "script.yaml").write_text("kind: script\nname: s\ncommand: [python, train.py]\n")
    done = folder.dlsys("submit", *words)
    assert done.code == 2
    assert message in done.err


def test_python_is_that_of_an_environment_that_is_active(tmp_path: Path) -> None:
    """Or else the one that runs dlsys, whatever the system's python is."""
    system, environment = tmp_path / "usr", tmp_path / "venv"
    for place in (system, environment):
        (place / "bin").mkdir(parents=True)
        (place / "bin" / "python").symlink_to(sys.executable)
    (environment / "pyvenv.cfg").write_text("")
    (tmp_path / "own.sh").write_text("#!/bin/sh\n")
    (tmp_path / "own.sh").chmod(0o700)
    here = str(tmp_path)
    assert program("python", here, {"PATH": str(system / "bin")}) == sys.executable
    assert program("python", here, {"PATH": ""}) == sys.executable
    path = os.pathsep.join([str(environment / "bin"), str(system / "bin")])
    assert program("python", here, {"PATH": path}) == str(environment / "bin" / "python")
    assert program("./own.sh", here, {"PATH": path}) == f"{tmp_path}/./own.sh"
    with pytest.raises(UsageError, match=r"no program 'own\.sh' on PATH"):
        program("own.sh", here, {"PATH": path})


def test_a_file_says_what_the_command_line_does(folder: Folder) -> None:
    """Its command is run in the file's folder, wherever that is started from."""
    (folder.path / "inside").mkdir()
    script(folder, "print(open('rows.txt').read(), sys.argv[1:])", "inside/train.py")
    (folder.path / "inside" / "rows.txt").write_text("some rows")
    (folder.path / "inside" / "job.yaml").write_text(
        "kind: script\nname: mine\ncommand: [python, train.py, --lr, '0.1']\ntracking: {experiment: e}\n"
    )
    assert folder.dlsys("check", "inside/job.yaml").code == 0
    done = folder.dlsys("run", "inside/job.yaml")
    assert done.code == 0, done.err
    assert "some rows ['--lr', '0.1']" in done.err
    artifacts = {
        item.path
        for item in folder.store().client.list_artifacts(folder.mlflow_runs()[0].info.run_id, "logs")
    }
    assert "logs/rank-0.log" in artifacts
    assert RunPaths(folder.run.root).source.read_text().startswith("kind: script")
