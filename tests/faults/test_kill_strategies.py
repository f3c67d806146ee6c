"""kill -9 of a worker under every strategy: the run ends where one worker would have."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from runner import JOB, Folder

from dlsys.registry import STRATEGIES

pytestmark = pytest.mark.faults

NET = """
import os

import mine
import torch
from torch import nn

from dlsys.zoo.layers.experts import MixtureOfExperts
from dlsys.zoo.vision.lenet5.model import LeNet5


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


class Mixed(Net):
    card = None
    metrics = {"accuracy": "max"}

    def build(self):
        return Experts()


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.mixture = MixtureOfExperts(4, 2, 8, 6, 8)
        self.head = nn.Linear(64, 10)

    def forward(self, image):
        tokens, _ = self.mixture(image.flatten(1).unflatten(1, (8, 8)))
        return self.head(tokens.flatten(1))
"""


def with_net(path: Path, strategy: str) -> Folder:
    folder = Folder(path)
    (path / "net.py").write_text(NET)
    workload = "net:Mixed" if strategy == "moe" else "net:Net"
    (path / "job.yaml").write_text(JOB.replace("mine:Mine", workload))
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Folder]:
    """An uninterrupted run of one worker, of the workload that a strategy trains here."""

    @cache
    def made(is_moe: bool) -> Folder:
        folder = with_net(tmp_path_factory.mktemp("one"), "moe" if is_moe else "single")
        done = folder.dlsys("run", "job.yaml")
        assert done.code == 0, done.err
        return folder

    return lambda strategy: made(strategy == "moe")


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES.names() if name not in ("single", "ddp")])
def test_a_killed_worker_costs_only_time(strategy: str, one: Callable[[str], Folder], tmp_path: Path) -> None:
    folder, whole = with_net(tmp_path, strategy), one(strategy)
    try:
        # Rank 1 is the last stage of a pipeline: losses are taken there.
        options = (f"strategy={{name: {strategy}}}", "resources.workers=2")
        done = folder.dlsys("run", "job.yaml", "--json", *options, FAULT_RANK="1")
        assert done.code == 0, done.err
        assert json.loads(done.out)["attempts"] == 2
        assert "continues from the checkpoint of step" in done.err
        assert set(folder.history("train/loss").values()) == {1}
        assert folder.history("train/loss").keys() == whole.history("train/loss").keys()
        for name, weight in whole.weights().items():
            assert torch.allclose(weight, folder.weights()[name], atol=1e-3), name
        folder.assert_alone()
    finally:
        folder.clean()


@pytest.mark.parametrize(("rank", "attempts"), [("1", 1), ("0", 2)])
def test_an_asynchronous_run_needs_only_rank_0(rank: str, attempts: int, tmp_path: Path) -> None:
    """The others make a dead worker's shares, in the same attempt; rank 0's death is every worker's."""
    folder = with_net(tmp_path, "ps")
    try:
        # The file's momentum and rate are too much for gradients that come late.
        options = (
            "strategy={name: ps, mode: async}",
            "resources.workers=2",
            "optimizer={name: adam, lr: 0.003}",
        )
        done = folder.dlsys("run", "job.yaml", "--json", *options, FAULT_RANK=rank)
        assert done.code == 0, done.err
        told = json.loads(done.out)
        assert (told["attempts"], told["step"]) == (attempts, 69)
        assert ("lost worker 1 by step" in done.err) == (rank == "1")
        assert told["metrics"]["valid/accuracy"] > 0.7
        assert folder.history("train/loss") == dict.fromkeys(range(1, 70), 1)
        (run,) = folder.mlflow_runs()
        assert run.info.status == "FINISHED"
        folder.assert_alone()
    finally:
        folder.clean()
