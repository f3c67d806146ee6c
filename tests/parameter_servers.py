"""Parameter servers for tests: threads of this process, without Ray."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from dlsys.spec.train.job import TrainJob
from dlsys.spec.train.strategy import PS
from dlsys.train.ps.server import Server
from dlsys.train.ps.wire import Servers


@contextmanager
def serving(job: TrainJob) -> Iterator[Servers | None]:
    """The servers that a job asks for, as long as the block runs; None for other strategies."""
    if not isinstance(job.strategy, PS):
        yield None
        return
    key = secrets.token_hex(32)
    servers = [Server(job, key, socket.create_server(("127.0.0.1", 0))) for _ in range(job.strategy.servers)]
    for server in servers:
        server.start()
    try:
        yield Servers(tuple(server.address for server in servers), key)
    finally:
        for server in servers:
            server.close()
