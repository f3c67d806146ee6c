"""`dlsys run -- python train.py`: a script that knows nothing of dlsys, from the command line to MLflow."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import sys
from pathlib import Path

import psutil
import pytest
from runner import Folder

from dlsys.errors import UsageError
from dlsys.jobs.launch.script import program
from dlsys.paths import RunPaths

# Plain torch, as it is written for torchrun: it goes on from its own checkpoint, and its gradients are the
# mean over all rows whatever the number of workers.
TRAIN = '''
import os, signal, sys
import mlflow, torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

distributed.init_process_group("gloo")
rank, size = distributed.get_rank(), distributed.get_world_size()
torch.manual_seed(0)
rows, labels = torch.randn(64, 8), torch.randn(64, 1)
model = nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
kept, begin = os.path.join(os.environ["DLSYS_CHECKPOINTS"], "last.pt"), 0
if os.path.exists(kept):
    saved = torch.load(kept)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    begin = saved["step"]
    print(f"goes on from step {begin}, restart {os.environ['TORCHELASTIC_RESTART_COUNT']}")
parallel = DistributedDataParallel(model)
if rank == 0:
    mlflow.start_run()
    mlflow.log_params({"lr": 0.1})
for step in range(begin, 6):
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(parallel(rows[rank::size]), labels[rank::size])
    loss.backward()
    if "die" in sys.argv and rank == 1 and begin == 0 and step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    optimizer.step()
    distributed.all_reduce(loss)
    if rank == 0:
        mlflow.log_metric("loss", loss.item() / size, step=step)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
        torch.save(state, kept + ".new")
        os.rename(kept + ".new", kept)
distributed.destroy_process_group()
'''


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
def test_a_killed_rank_is_retried_and_ddp_is_one_workers_training(folder: Folder, tmp_path: Path) -> None:
    """Two real processes over gloo: a killed rank, a retry from the script's own checkpoint, one MLflow run
    with each step once; and the weights are those of one worker that was left alone."""
    import torch

    (tmp_path / "one").mkdir()
    one = Folder(tmp_path / "one")
    (one.path / "train.py").write_text(TRAIN)
    assert one.dlsys("run", "--", "python", "train.py").code == 0, one.err

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
    assert run.data.metrics["loss"] == pytest.approx(one.mlflow_runs()[0].data.metrics["loss"], rel=1e-5)
    ours, theirs = (torch.load(f.run.checkpoints / "last.pt")["model"] for f in (folder, one))
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name])
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
        "See it:       dlsys ui",
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
