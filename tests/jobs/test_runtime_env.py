"""What Ray is told to run a submitted job in."""

from __future__ import annotations

import asyncio
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from dlsys.jobs.desk.book import Job
from dlsys.jobs.desk.dispatcher import Dispatcher
from dlsys.jobs.desk.ray_api import Node, RayApi, RayJob
from dlsys.jobs.submission import Options
from dlsys.jobs.submit import of_loaded
from dlsys.paths import RunPaths
from dlsys.spec.script.load import of_command


class Told(RayApi):
    """A Ray of one node that only listens."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1", "")
        self.jobs: list[tuple[str, dict[str, Any]]] = []
        self.uploaded: list[str] = []

    async def submit(self, ray_id: str, entrypoint: str, runtime_env: dict[str, Any]) -> None:
        self.jobs.append((entrypoint, runtime_env))

    async def upload(self, package: Path) -> None:
        self.uploaded.append(package.name)

    async def nodes(self) -> list[Node]:
        return [Node("1", "head-0", "127.0.0.1", True, {"CPU": 2.0, "GPU": 0.0})]

    async def job(self, ray_id: str) -> RayJob | None:
        return RayJob("RUNNING", "", None, "1")


def given(folder: Path, pip: Path | None = None) -> tuple[list[str], dict[str, Any]]:
    """The words and the environment with which Ray gets a script."""
    ray = Told()
    (folder / "train.py").touch()
    options = Options(job_id="train-20260101-120000-abcd", env=("FLAG=on",), folder=folder, pip=pip)
    made = of_loaded(of_command(["python", "train.py", "a b"], None, [], folder), options)
    del made["files"], made["secrets"]
    made.setdefault("package", f"{'a' * 64}.zip")
    job = Job(cluster="here", submitted=1.0, **made)
    RunPaths.create(job.id)

    async def turn() -> None:
        dispatcher = Dispatcher("here", ray, folder, list)
        dispatcher.take(job)
        work = asyncio.create_task(dispatcher.run())
        while not ray.jobs:
            await asyncio.sleep(0.01)
        work.cancel()

    asyncio.run(asyncio.wait_for(turn(), 20))
    assert ray.uploaded == [made["package"]]
    line, env = ray.jobs[0]
    return shlex.split(line), env


def test_a_script_has_a_driver_in_its_packed_folder(home: Path, tmp_path: Path) -> None:
    words, env = given(tmp_path)
    assert words[:3] == ["exec", sys.executable, "-P"]
    assert words[-7:-3] == ["dlsys.cli.main", "run", "--resume", "train-20260101-120000-abcd"]
    assert env["working_dir"] == f"gcs://{'a' * 64}.zip"
    assert env["env_vars"]["FLAG"] == "on"
    assert env["env_vars"]["DLSYS_HOME"] == str(home)


def test_requirements_are_as_ray_wants_them(tmp_path: Path) -> None:
    from ray.runtime_env import RuntimeEnv

    (tmp_path / "requirements.txt").write_text("# what it needs\n\neinops>=0.8\n  einx  \n")
    words, env = given(tmp_path, tmp_path / "requirements.txt")
    assert env["pip"] == ["einops>=0.8", "einx"]
    assert words[1] == "python", "the environment's own, which Ray puts first in the path"
    checked = RuntimeEnv(**env)  # raises for what Ray does not take
    assert checked["pip"]["packages"] == ["einops>=0.8", "einx"]
    assert checked.working_dir() == env["working_dir"]


def test_a_file_of_requirements_that_is_not_there(tmp_path: Path) -> None:
    from dlsys.errors import UsageError

    with pytest.raises(UsageError, match=r"--pip .*: cannot be read"):
        given(tmp_path, tmp_path / "no.txt")
