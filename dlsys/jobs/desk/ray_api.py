"""What the desk asks of Ray, over the dashboard's HTTP: jobs, packages and nodes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from dlsys.plan.room import Bundle

_PATIENCE = aiohttp.ClientTimeout(total=30)
_ANSWERS_WITHIN = 0.5  # seconds


class RayAway(Exception):
    """Ray's head does not answer; it may come back."""


class RayRefused(Exception):
    """Ray would not take a job, in its own words."""


@dataclass(frozen=True)
class Node:
    """A Ray node.

    Attributes:
        id: Ray's.
        name: dlsys's: `worker-0`; the address where there is none.
        host: its address.
        alive: whether Ray thinks so.
        resources: CPUs and GPUs that it has.
        port: where its raylet listens.
    """

    id: str
    name: str
    host: str
    alive: bool
    resources: Bundle
    port: int = 0

    async def answers(self) -> bool:
        """Whether something listens there: Ray takes ten seconds and more to give up a node that died."""
        if not self.alive:
            return False
        try:
            async with asyncio.timeout(_ANSWERS_WITHIN):
                _, writer = await asyncio.open_connection(self.host, self.port)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True


@dataclass(frozen=True)
class RayJob:
    """How a job stands with Ray.

    Attributes:
        status: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        message: why, in Ray's words.
        exit_code: of the entrypoint, once it has ended.
        node: Ray's id of the node it was started on; empty until then.
    """

    status: str
    message: str
    exit_code: int | None
    node: str

    @property
    def ended(self) -> bool:
        """Whether it has ended, by itself or not."""
        return self.status in ("SUCCEEDED", "FAILED", "STOPPED")


class RayApi:
    """A client of one cluster's dashboard; use it as an asynchronous context.

    Args:
        url: the dashboard's.
        token: Ray's.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> RayApi:
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=_PATIENCE)
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def submit(self, ray_id: str, entrypoint: str, runtime_env: dict[str, Any]) -> None:
        """Gives Ray a job, which it starts on its head; one that it has already is left as it is.

        Raises:
            RayRefused: Ray will not have it.
        """
        body = {"submission_id": ray_id, "entrypoint": entrypoint, "runtime_env": runtime_env}
        status, text = await self._call("POST", "/api/jobs/", json=body)
        if status != 200 and await self.job(ray_id) is None:
            lines = [line for line in str(text).strip().splitlines() if line.strip()]
            raise RayRefused(lines[-1] if lines else f"Ray answers {status}")

    async def job(self, ray_id: str) -> RayJob | None:
        """How a job stands; None for one that Ray does not know."""
        status, found = await self._call("GET", f"/api/jobs/{ray_id}")
        if status == 404:
            return None
        if status != 200:
            raise RayAway(str(found))
        message, code = found.get("message") or "", found.get("driver_exit_code")
        return RayJob(found["status"], message, code, found.get("driver_node_id") or "")

    async def stop(self, ray_id: str) -> None:
        """SIGTERM to all processes of a job, and SIGKILL where that did not help in time."""
        await self._call("POST", f"/api/jobs/{ray_id}/stop")

    async def upload(self, package: Path) -> None:
        """Makes a packed folder available to all nodes, as `gcs://<its name>`."""
        place = f"/api/packages/gcs/{package.name}"
        if (await self._call("GET", place))[0] == 200:
            return
        with open(package, "rb") as file:
            status, text = await self._call("PUT", place, data=file)
        if status != 200:
            raise RayRefused(f"the working folder was not taken: {text}")

    async def nodes(self) -> list[Node]:
        """All nodes that Ray remembers, also dead ones."""
        status, found = await self._call("GET", "/nodes?view=summary")
        if status != 200:
            raise RayAway(str(found))
        return [_node(entry) for entry in found["data"]["summary"] if entry.get("raylet")]

    async def _call(self, method: str, path: str, **more: Any) -> tuple[int, Any]:
        assert self._session is not None
        try:
            async with self._session.request(method, self._url + path, **more) as answer:
                plain = answer.content_type == "application/json"
                return answer.status, (await answer.json() if plain else await answer.text(errors="replace"))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise RayAway(f"{type(error).__name__}: {error}") from error


def _node(entry: dict[str, Any]) -> Node:
    raylet = entry["raylet"]
    labels, total = raylet.get("labels") or {}, raylet.get("resourcesTotal") or {}
    return Node(
        id=raylet["nodeId"],
        name=labels.get("dlsys/node", raylet["nodeManagerAddress"]),
        host=raylet["nodeManagerAddress"],
        alive=raylet.get("state") == "ALIVE",
        resources={key: float(total.get(key, 0.0)) for key in ("CPU", "GPU")},
        port=int(raylet.get("nodeManagerPort") or 0),
    )
