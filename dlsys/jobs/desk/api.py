"""The desk's HTTP: small JSON over a loopback port, every request with the cluster's token.

GET  /health                      GET  /nodes
GET  /jobs                        POST /jobs
GET  /jobs/ID[?after=N&wait=S]    POST /jobs/ID/stop, /jobs/ID/retry
GET  /jobs/ID/logs[?rank=N&offset=B&follow=1]
PUT  /packages/SHA256.zip         HEAD likewise: whether it is there
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from dlsys import __version__
from dlsys.errors import DlsysError
from dlsys.jobs import cost, secrets
from dlsys.jobs.desk import book
from dlsys.jobs.desk.book import Job
from dlsys.jobs.desk.dispatcher import VERBS, Dispatcher
from dlsys.jobs.desk.keeping import Keeping
from dlsys.jobs.desk.states import ENDED
from dlsys.paths import RUN_ID, RunPaths, write_json
from dlsys.spec.cluster.providers import Cluster
from dlsys.track.record import default_uri

_PACKAGE = re.compile(r"[0-9a-f]{64}\.zip")
# What a submission may bring for its run's folder.
_FILES = ("job.yaml", "spec.yaml", "trained.yaml", "record.json", "diff.patch", "ledger.jsonl")
_MOST_JSON = 64 * 1024 * 1024
_LOG_PART = 256 * 1024
_LOOK = 0.2
# What is not one of these is the desk's own to decide.
_ASKED = ("id", "kind", "bundles", "times", "package", "pip", "env", "priority", "retries")

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Api:
    """The routes over one dispatcher.

    Args:
        dispatcher: the jobs.
        cluster: the cluster.
        packages: the folder for packed working folders.
        token: what every request must carry.
        keeping: brings jobs to the object store, where there is one.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        cluster: Cluster,
        packages: Path,
        token: str,
        keeping: Keeping | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._name = cluster.name
        self._max_package = cluster.max_package
        self._packages = packages
        self._token = token
        self._keeping = keeping
        self._taking = asyncio.Lock()
        self._changes = 0
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        dispatcher.listeners.add(self._notify)

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard], client_max_size=_MOST_JSON)
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/nodes", self._nodes),
                web.get("/jobs", self._list),
                web.post("/jobs", self._submit),
                web.get("/jobs/{id}", self._show),
                web.post("/jobs/{id}/stop", self._stop),
                web.post("/jobs/{id}/retry", self._retry),
                web.get("/jobs/{id}/logs", self._logs),
                web.get("/packages/{name}", self._package),
                web.put("/packages/{name}", self._upload),
            ]
        )
        return app

    def _notify(self) -> None:
        async def tell() -> None:
            async with self._changed:
                self._changes += 1
                self._changed.notify_all()

        task = asyncio.ensure_future(tell())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        # A page in a browser could call a loopback port, under any name that leads here.
        if urlsplit(f"//{request.host}").hostname not in ("127.0.0.1", "localhost", "::1"):
            return _refuse(403, "this name is not mine")
        if "Origin" in request.headers:
            return _refuse(403, "not for pages of browsers")
        given = request.headers.get("Authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {self._token}".encode()):
            return _refuse(401, "a request needs the cluster's token")
        try:
            return await handler(request)
        except _Refused as refused:
            return _refuse(refused.status, str(refused))
        except DlsysError as error:
            return _refuse(400, str(error))

    async def _health(self, request: web.Request) -> web.Response:
        away = self._dispatcher.away
        return web.json_response(
            {
                "cluster": self._name,
                "version": __version__,
                "pid": os.getpid(),
                "max_package": self._max_package,
                "ray_away_since": away,
                "store_away": self._keeping.error if self._keeping else "",
                "behind": self._keeping.behind if self._keeping else 0,
            }
        )

    async def _nodes(self, request: web.Request) -> web.Response:
        """Each with `answers` besides, as it is now: `alive` is what Ray thought when it was asked last."""
        nodes = list(self._dispatcher.nodes)
        answers = await asyncio.gather(*(node.answers() for node in nodes))
        rows = zip(nodes, answers, strict=True)
        return web.json_response([{**asdict(node), "answers": answer} for node, answer in rows])

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response([job.to_dict() for job in self._dispatcher.jobs.values()])

    async def _show(self, request: web.Request) -> web.Response:
        """A job; with `after`, only when something has changed since, or `wait` seconds have passed."""
        job = self._job(request)
        after, wait = request.query.get("after"), float(request.query.get("wait", 0))
        if after is not None and job.state not in ENDED:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(wait, 60)), self._changed:
                    await self._changed.wait_for(lambda: self._changes > int(after))
        found = await asyncio.to_thread(cost.described, book.paths_of(job.id))
        return web.json_response({**job.to_dict(), "cost": found, "change": self._changes})

    async def _submit(self, request: web.Request) -> web.Response:
        asked = await request.json()
        if not isinstance(asked, dict) or not RUN_ID.fullmatch(str(asked.get("id", ""))):
            raise _Refused(400, "a submission needs an id: name-date-time-random")
        async with self._taking:
            return web.json_response((await self._taken(asked)).to_dict())

    async def _taken(self, asked: dict[str, Any]) -> Job:
        known = self._dispatcher.jobs.get(asked["id"])
        if known is None:
            job = self._new(asked)
            if why := self._dispatcher.refusal(job):
                raise _Refused(409, why)
            if self._keeping is not None and asked.get("secrets") and job.kind == "sweep":
                raise _Refused(409, "a sweep whose runs are in an object store cannot have secrets")
            if self._keeping is not None and job.kind == "script" and job.retries:
                raise _Refused(
                    409,
                    "failure.retries: must be 0 where runs are in an object store, which does not keep what "
                    "a script saves itself",
                )
            self._write_files(job, asked.get("files", {}))
            if values := asked.get("secrets"):
                job.secrets = sorted(values)
                secrets.keep(book.paths_of(job.id).secrets, values)
            if self._keeping is not None:
                try:
                    await asyncio.to_thread(self._keeping.begin, job)
                except OSError as error:
                    raise _Refused(503, f"{error}; nothing was submitted") from error
            known = self._dispatcher.take(job)
        return known

    def _new(self, asked: dict[str, Any]) -> Job:
        given = {key: asked[key] for key in _ASKED if key in asked}
        names = {each.name for each in fields(Job)}
        assert names >= given.keys()
        if given.get("kind") not in VERBS:
            raise _Refused(400, f"kind: one of {', '.join(VERBS)}, got {given.get('kind')!r}")
        if given.get("package") and not (self._packages / _package_name(given["package"])).exists():
            raise _Refused(409, "the working folder has not arrived")
        return Job(cluster=self._name, submitted=time.time(), **given)

    def _write_files(self, job: Job, files: dict[str, str]) -> None:
        """Makes the run's folder from what the submission brought."""
        if foreign := set(files) - set(_FILES):
            raise _Refused(400, f"no file of a run: {', '.join(sorted(foreign))}")
        paths = book.paths_of(job.id)
        if not paths.root.exists():
            RunPaths.create(job.id)
        for name, text in files.items():
            if name != "record.json":
                (paths.root / name).write_text(text)
        if "record.json" in files:
            record = json.loads(files["record.json"])
            record["uri"] = record.get("uri") or default_uri()
            record["tags"] = {**record.get("tags", {}), "dlsys.cluster": self._name}
            if rates := self._dispatcher.rates():
                record["tags"]["dlsys.currency"] = rates["currency"]
            write_json(paths.record, record)

    async def _stop(self, request: web.Request) -> web.Response:
        job = self._job(request)
        self._dispatcher.stop(job)
        return web.json_response(job.to_dict())

    async def _retry(self, request: web.Request) -> web.Response:
        job = self._job(request)
        if job.state not in ENDED:
            raise _Refused(409, f"{job.id} is {job.state}: only a job that has ended can be tried again")
        if job.secrets:
            raise _Refused(409, f"{job.id} had secrets, which are gone; submit it again with --secret")
        self._dispatcher.retry(job)
        return web.json_response(job.to_dict())

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        job = self._job(request)
        paths, rank = book.paths_of(job.id), request.query.get("rank")
        if rank is not None and not rank.isdecimal():
            raise _Refused(400, f"rank: a number, got {rank!r}")
        path = paths.logs / "driver.log" if rank is None else paths.log(int(rank))
        follow = request.query.get("follow") == "1"
        if rank is not None and not path.exists() and not follow:
            raise _Refused(404, f"{job.id} has no log of rank {rank}")
        offset = int(request.query.get("offset", 0))
        answer = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        await answer.prepare(request)
        while True:
            ended = job.state in ENDED
            while part := await asyncio.to_thread(_read, path, offset):
                await answer.write(part)
                offset += len(part)
            if ended or not follow:
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK), self._changed:
                    await self._changed.wait()
        await answer.write_eof()
        return answer

    async def _package(self, request: web.Request) -> web.Response:
        there = (self._packages / _package_name(request.match_info["name"])).exists()
        return web.json_response({"there": there}, status=200 if there else 404)

    async def _upload(self, request: web.Request) -> web.Response:
        name = _package_name(request.match_info["name"])
        self._packages.mkdir(mode=0o700, exist_ok=True)
        beside = self._packages / f".{name}.{time.monotonic_ns()}"
        digest = hashlib.sha256()
        try:
            with open(beside, "wb") as file:
                async for part in request.content.iter_chunked(1 << 20):
                    digest.update(part)
                    file.write(part)
            if f"{digest.hexdigest()}.zip" != name:
                raise _Refused(400, "the working folder arrived damaged")
            beside.replace(self._packages / name)
            if self._keeping is not None:
                await asyncio.to_thread(self._keeping.send_package, self._packages / name)
        finally:
            beside.unlink(missing_ok=True)
        return web.json_response({"there": True})

    def _job(self, request: web.Request) -> Job:
        prefix = request.match_info["id"]
        jobs = self._dispatcher.jobs
        found = (
            [jobs[prefix]] if prefix in jobs else [job for key, job in jobs.items() if key.startswith(prefix)]
        )
        if not found:
            raise _Refused(404, f"no job {prefix!r} on {self._name}")
        if len(found) > 1:
            raise _Refused(409, f"{prefix!r} fits several jobs: {', '.join(job.id for job in found)}")
        return found[0]


class _Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def _refuse(status: int, text: str) -> web.Response:
    return web.json_response({"error": text}, status=status)


def _package_name(name: str) -> str:
    if not _PACKAGE.fullmatch(name):
        raise _Refused(400, f"no package's name: {name!r}")
    return name


def _read(path: Path, offset: int) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(_LOG_PART)
    except FileNotFoundError:
        return b""
