"""Runs the desk on a cluster's head, beside Ray, until it is asked to end.

    python -m dlsys.jobs.desk CLUSTER_FOLDER

The folder holds `cluster.yaml`; the desk writes `desk.json` there when it listens, and keeps packed
working folders in it. What a provider knows better than the file is told by options.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import psutil
from aiohttp import web

from dlsys.cluster.provider import DESK_PORT
from dlsys.errors import DlsysError
from dlsys.jobs.cost import rates_of
from dlsys.jobs.desk.api import Api
from dlsys.jobs.desk.dispatcher import Dispatcher
from dlsys.jobs.desk.keeping import Keeping
from dlsys.jobs.desk.ray_api import RayApi
from dlsys.jobs.mirror.recall import recall
from dlsys.paths import home, write_json
from dlsys.plan.room import Bundle
from dlsys.spec.cluster.providers import Cluster
from dlsys.spec.load import load_cluster


def capacity(cluster: Cluster) -> list[Bundle]:
    """The nodes that a cluster has at most; an empty one where the file does not say its size."""
    found: list[Bundle] = []
    for group in cluster.nodes:
        count = getattr(group, "max", None) or getattr(group, "count", None)
        count = len(group.hosts) if hasattr(group, "hosts") else count
        known = group.cpus is not None and group.gpus is not None
        size = {"CPU": float(group.cpus or 0), "GPU": float(group.gpus or 0)} if known else {}
        found += [dict(size) for _ in range(count or 0)]
    return found


class _File:
    """The cluster's file, which `up` may replace while the desk is at work."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = 0.0

    @property
    def cluster(self) -> Cluster:
        written = self._path.stat().st_mtime
        if written != self._written:
            self._cluster = load_cluster(self._path).cluster
            self._written = written
        return self._cluster

    def capacity(self) -> list[Bundle]:
        return capacity(self.cluster)

    def rates(self) -> dict[str, Any] | None:
        return rates_of(self.cluster)


async def serve(folder: Path, dashboard: str, host: str, port: int) -> None:
    """Serves until SIGTERM or SIGINT."""
    file = _File(folder / "cluster.yaml")
    token = _token()
    packages = folder / "packages"
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, done.set)
    async with RayApi(dashboard, token) as ray:
        name = file.cluster.name
        dispatcher = Dispatcher(name, ray, packages, file.capacity, file.rates)
        store = os.environ.get("DLSYS_STORE")
        dispatcher.keeping = keeping = Keeping(store, dispatcher.jobs) if store else None
        api = Api(dispatcher, file.cluster, packages, token, keeping)
        runner = web.AppRunner(api.app(), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        me = psutil.Process()
        told = {"host": socket.gethostname(), "port": port, "pid": me.pid, "created": me.create_time()}
        write_json(folder / "desk.json", told)
        work = asyncio.create_task(dispatcher.run())
        sending = asyncio.create_task(keeping.run()) if keeping else None
        ended = asyncio.create_task(done.wait())
        await asyncio.wait([work, ended], return_when=asyncio.FIRST_COMPLETED)
        if sending is not None:
            sending.cancel()
        await runner.cleanup()
        if work.done():
            work.result()  # raises what ended it


def _token() -> str:
    text = os.environ.get("RAY_AUTH_TOKEN")
    return text or Path(os.environ["RAY_AUTH_TOKEN_PATH"]).read_text().strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--storage", help="where runs are kept; by default as the cluster's file says")
    parser.add_argument("--dashboard", default="http://127.0.0.1:8265", help="Ray's dashboard")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=DESK_PORT)
    arguments = parser.parse_args()
    os.umask(0o077)
    lock = open(arguments.folder / "desk.lock", "w")  # noqa: SIM115 - held until the process ends
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    storage = arguments.storage or load_cluster(arguments.folder / "cluster.yaml").cluster.storage
    assert storage is not None, "a cluster's file says it, or its keeper"
    if "://" in storage:
        os.environ["DLSYS_STORE"] = storage
        try:
            recall(storage, home())
        except (DlsysError, OSError) as error:
            sys.exit(str(error))
    else:
        os.environ["DLSYS_HOME"] = storage
    asyncio.run(serve(arguments.folder, arguments.dashboard, arguments.host, arguments.port))


if __name__ == "__main__":
    main()
