"""kill -9 of a worker under every strategy: the run ends where one worker would have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from runner import JOB, Folder

from dlsys.registry import WORKLOADS

pytestmark = pytest.mark.faults

NET = """
import os

import mine
import torch

from dlsys.zoo.vision.lenet import LeNet5


class Net(LeNet5):
    calls = 0

    def objective(self, outputs, batch):
        if torch.is_grad_enabled():
            Net.calls += 1
            here = str(mine.rank()) == os.environ.get("FAULT_RANK")
            if here and Net.calls == 33 and not os.path.exists("fault-struck"):
                open("fault-struck", "w").close()
                mine.fault("kill")
        return super().objective(outputs, batch)
"""


def with_net(path: Path) -> Folder:
    folder = Folder(path)
    (path / "net.py").write_text(NET)
    (path / "job.yaml").write_text(JOB.replace("mine:Mine", "net:Net"))
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """An uninterrupted run of one worker."""
    folder = with_net(tmp_path_factory.mktemp("one"))
    done = folder.dlsys("run", "job.yaml")
    assert done.code == 0, done.err
    return folder


@pytest.mark.parametrize(
    "strategy", [name for name in WORKLOADS.load("lenet-5").strategies if name not in ("single", "ddp")]
)
def test_a_killed_worker_costs_only_time(strategy: str, one: Folder, tmp_path: Path) -> None:
    folder = with_net(tmp_path)
    try:
        # Rank 1 is the last stage of a pipeline: losses are taken there.
        options = (f"strategy={{name: {strategy}}}", "resources.workers=2")
        done = folder.dlsys("run", "job.yaml", "--json", *options, FAULT_RANK="1")
        assert done.code == 0, done.err
        assert json.loads(done.out)["attempts"] == 2
        assert "continues from the checkpoint of step" in done.err
        assert set(folder.history("train/loss").values()) == {1}
        assert folder.history("train/loss").keys() == one.history("train/loss").keys()
        for name, weight in one.weights().items():
            assert torch.allclose(weight, folder.weights()[name], atol=1e-3), name
        folder.assert_alone()
    finally:
        folder.clean()
