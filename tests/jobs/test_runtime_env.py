"""What Ray is told to run a submitted job in."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path
from typing import Any

import pytest

from dlsys.jobs.desk.book import Job
from dlsys.jobs.desk.dispatcher import Dispatcher
from dlsys.jobs.desk.ray_api import Node, RayApi, RayJob
from dlsys.jobs.submission import Options, of_command
from dlsys.paths import RunPaths


class Told(RayApi):
    """A Ray of one node that only listens."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1", "")
        self.jobs: list[tuple[str, dict[str, Any], dict[str, Any]]] = []
        self.uploaded: list[str] = []

    async def submit(self, ray_id: str, entrypoint: str, runtime_env: dict[str, Any], **room: Any) -> None:
        self.jobs.append((entrypoint, runtime_env, room))

    async def upload(self, package: Path) -> None:
        self.uploaded.append(package.name)

    async def nodes(self) -> list[Node]:
        return [Node("1", "head-0", "127.0.0.1", True, {"CPU": 2.0, "GPU": 0.0})]

    async def job(self, ray_id: str) -> RayJob | None:
        return RayJob("RUNNING", "", None, "1")


def given(folder: Path, **more: Any) -> tuple[list[str], dict[str, Any], dict[str, Any]]:
    """The words, the environment and the room with which Ray gets a command."""
    ray = Told()
    (folder / "train.py").touch()
    told = {"folder": folder, **more.pop("options", {})}
    options = Options(job_id="train-20260101-120000-abcd", env=("FLAG=on",), **told)
    need = {"CPU": more.pop("cpus", 1.0)} | ({"GPU": more.pop("gpus")} if "gpus" in more else {})
    made = of_command(["python", "train.py", "a b"], None, more.pop("workers", 1), need, options)
    assert not more
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
    line, env, room = ray.jobs[0]
    return shlex.split(line), env, room


def test_one_process_runs_as_the_jobs_own(home: Path, tmp_path: Path) -> None:
    words, env, room = given(tmp_path, workers=1, cpus=2)
    assert words[:4] == ["exec", "python", "train.py", "a b"]
    assert room == {"entrypoint_num_cpus": 2.0}
    assert env["working_dir"] == f"gcs://{'a' * 64}.zip"
    assert env["env_vars"]["FLAG"] == "on"
    assert env["env_vars"]["DLSYS_HOME"] == str(home)
    assert env["env_vars"]["WORLD_SIZE"] == "1"


def test_several_processes_need_a_driver(tmp_path: Path) -> None:
    words, env, room = given(tmp_path, workers=2, cpus=1)
    assert words[-6:-3] == ["dlsys.cli.main", "job-group", "train-20260101-120000-abcd"]
    assert room == {}, "the ranks hold the room, not their driver"
    assert "WORLD_SIZE" not in env["env_vars"]


def test_requirements_are_as_ray_wants_them(tmp_path: Path) -> None:
    from ray.runtime_env import RuntimeEnv

    (tmp_path / "requirements.txt").write_text("# what it needs\n\neinops>=0.8\n  einx  \n")
    words, env, _ = given(tmp_path, workers=2, options={"pip": tmp_path / "requirements.txt"})
    assert env["pip"] == ["einops>=0.8", "einx"]
    assert words[1] == "python", "the environment's own, which Ray puts first in the path"
    checked = RuntimeEnv(**env)  # raises for what Ray does not take
    assert checked["pip"]["packages"] == ["einops>=0.8", "einx"]
    assert checked.working_dir() == env["working_dir"]


def test_a_file_of_requirements_that_is_not_there(tmp_path: Path) -> None:
    from dlsys.errors import UsageError

    with pytest.raises(UsageError, match=r"--pip .*: cannot be read"):
        given(tmp_path, workers=1, options={"pip": tmp_path / "no.txt"})
