"""What trains an agent is killed, part by part."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from harness import assert_equal
from runner import AGENT, Folder

pytestmark = [pytest.mark.faults, pytest.mark.ray]


def made(path: Path) -> Folder:
    folder = Folder(path)
    (folder.path / "agent.yaml").write_text(AGENT.replace("epochs: 6", "epochs: 10"))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    folder = made(tmp_path)
    yield folder
    folder.clean()


@pytest.fixture(scope="module")
def unhurt(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    folder = made(tmp_path_factory.mktemp("unhurt"))
    done = folder.dlsys("run", "agent.yaml")
    assert done.code == 0, done.err
    return folder


def actors(folder: Folder, name: str) -> list[psutil.Process]:
    """Ray's processes of this folder's run with a name like this."""
    return [process for process in folder.processes() if name in " ".join(process.cmdline())]


def test_the_learner_dies_and_the_run_goes_on_as_if_it_had_not(unhurt: Folder, folder: Folder) -> None:
    process = folder.start("run", "agent.yaml", "--json")
    folder.wait_for(lambda: folder.step() >= 1200)
    (learner,) = actors(folder, "ray::_Worker")
    os.kill(learner.pid, signal.SIGKILL)
    done = folder.finish(process)
    assert done.code == 0, done.err
    assert json.loads(done.out)["attempts"] == 2
    assert_equal(unhurt.weights(), folder.weights())
    assert folder.history("train/return") == unhurt.history("train/return")
    assert folder.history("valid/return") == unhurt.history("valid/return")
    folder.assert_alone()


def test_the_driver_dies_and_the_resumed_run_is_the_same(unhurt: Folder, folder: Folder) -> None:
    process = folder.start("run", "agent.yaml")
    folder.wait_for(lambda: folder.step() >= 1200)
    process.kill()
    process.wait()
    done = folder.dlsys("run", "--resume", "agent")
    assert done.code == 0, done.err
    assert_equal(unhurt.weights(), folder.weights())
    assert folder.history("train/return") == unhurt.history("train/return")
    folder.assert_alone()


def test_an_env_runner_dies_and_another_takes_its_place(folder: Folder) -> None:
    process = folder.start("run", "agent.yaml", "stop.epochs=25", "--json")
    folder.wait_for(lambda: folder.step() >= 1200)
    victim, _ = actors(folder, "EnvRunner")
    os.kill(victim.pid, signal.SIGKILL)
    folder.wait_for(lambda: len(actors(folder, "EnvRunner")) == 2)
    done = folder.finish(process)
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["attempts"], told["status"]) == (1, "FINISHED")
    assert set(folder.history("train/return").values()) == {1}
    folder.assert_alone()
