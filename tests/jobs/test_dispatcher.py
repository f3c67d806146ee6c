"""The desk at work, with a Ray that only says what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlsys.jobs.desk import book
from dlsys.jobs.desk.book import Job
from dlsys.jobs.desk.dispatcher import Dispatcher
from dlsys.jobs.desk.ray_api import Node, RayApi, RayJob
from dlsys.jobs.desk.states import State
from dlsys.paths import RunPaths


class Ray(RayApi):
    """Attributes:
    given: ids of the attempts that it got.
    says: how each of them stands.
    on_submit: called while one is given.
    """

    def __init__(self) -> None:
        self.given: list[str] = []
        self.asked_to_stop: list[str] = []
        self.says = RayJob("RUNNING", "", None, "1")
        self.on_submit: Callable[[], None] = lambda: None

    async def submit(self, ray_id: str, entrypoint: str, runtime_env: dict[str, Any]) -> None:
        self.given.append(ray_id)
        self.on_submit()

    async def stop(self, ray_id: str) -> None:
        self.asked_to_stop.append(ray_id)

    async def nodes(self) -> list[Node]:
        return [Node("1", "head-0", "127.0.0.1", True, {"CPU": 2.0, "GPU": 0.0})]

    async def job(self, ray_id: str) -> RayJob | None:
        return self.says


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLSYS_HOME", str(tmp_path / "home"))


def job(name: str, at: float) -> Job:
    made = Job(f"{name}-20260101-000000-0000", "train", "here", [{"CPU": 1.0}], at)
    RunPaths.create(made.id)
    return made


async def until(dispatcher: Dispatcher, holds: Callable[[], bool]) -> None:
    work = asyncio.create_task(dispatcher.run())
    async with asyncio.timeout(60):
        while not holds():
            assert not work.done()
            await asyncio.sleep(0.01)
    work.cancel()


def test_a_job_that_is_stopped_while_another_is_given_does_not_start(tmp_path: Path) -> None:
    ray = Ray()
    first, second = job("first", 1.0), job("second", 2.0)

    async def work() -> None:
        dispatcher = Dispatcher("here", ray, tmp_path, list)
        dispatcher.take(first)
        dispatcher.take(second)
        ray.on_submit = lambda: dispatcher.stop(second)
        await until(dispatcher, lambda: first.state is State.RUNNING)

    asyncio.run(work())
    assert ray.given == [f"{first.id}.1"]
    assert (second.state, second.reason) == (State.STOPPED, "stopped while it waited")


def test_what_becomes_of_a_job_is_written_down(tmp_path: Path) -> None:
    ray = Ray()
    one = job("one", 1.0)
    states: list[str] = []

    async def work() -> None:
        dispatcher = Dispatcher("here", ray, tmp_path, list)
        dispatcher.listeners.add(lambda: states.append(one.state))
        dispatcher.take(one)
        await until(dispatcher, lambda: one.state is State.RUNNING)
        dispatcher.stop(one)
        await until(dispatcher, lambda: bool(ray.asked_to_stop))
        ray.says = RayJob("STOPPED", "", None, "1")
        await until(dispatcher, lambda: one.state is State.STOPPED)

    asyncio.run(work())
    assert ray.asked_to_stop == [one.ray_id], "once"
    assert states == ["QUEUED", "PENDING", "RUNNING", "RUNNING", "STOPPED"]
    assert book.read(book.paths_of(one.id)) == one
