"""Parameter servers as Ray actors: Ray places them, ends them, and brings a killed one back.

Ray carries no tensors: workers talk to the servers' own sockets. Under `mode: sync` a dead server
ends the attempt, and the run goes back to its checkpoint, so that nothing is lost. Under the
asynchronous modes Ray starts the actor again, and the server continues from its snapshot on the
same port, where workers look for it.
"""

from __future__ import annotations

import secrets
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from dlsys.jobs.launch.assignment import Assignment
from dlsys.jobs.launch.ray_actors import wait_for
from dlsys.spec.train.job import TrainJob


@contextmanager
def parameter_servers(assignment: Assignment, watch: Callable[[], None]) -> Iterator[Assignment]:
    """The assignment with the addresses of the servers that its job asks for, as long as they run.

    Args:
        watch: called several times a second while they start; raises to end the attempt.
    """
    strategy = assignment.trained.servers
    assert strategy is not None, "only a job with servers comes here"
    key = secrets.token_hex(32)
    hosts: list[Any] = [
        ray.remote(_Host)
        .options(num_cpus=0, max_restarts=0 if strategy.in_step else -1, scheduling_strategy="SPREAD")
        .remote(assignment.to_dict(), index, key)
        for index in range(strategy.servers)
    ]
    try:
        addresses = wait_for([host.address.remote() for host in hosts], watch)
        yield replace(assignment, servers={"addresses": addresses, "key": key})
    finally:
        for host in hosts:
            ray.kill(host)
        shutil.rmtree(assignment.paths.root / "servers", ignore_errors=True)


class _Host:
    """One server's process."""

    def __init__(self, config: dict[str, Any], index: int, key: str) -> None:
        assignment = Assignment.from_dict(config).here()
        place = assignment.attempt_folder(assignment.paths.root / "servers")
        place.mkdir(parents=True, exist_ok=True)
        assignment.paths.make()
        host = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        known = place / f"server-{index}.port"
        port = int(known.read_text()) if known.exists() else 0
        # It listens before torch is imported: workers start meanwhile, and wait in the queue.
        listener = socket.create_server((host, port))
        self._address = f"{host}:{listener.getsockname()[1]}"
        known.write_text(str(listener.getsockname()[1]))
        snapshot = known.with_suffix(".safetensors")
        threading.Thread(
            target=_serve, args=(assignment, index, key, listener, snapshot), daemon=True
        ).start()

    def address(self) -> str:
        return self._address


def _serve(assignment: Assignment, index: int, key: str, listener: socket.socket, snapshot: Path) -> None:
    import torch

    from dlsys.jobs.launch.worker import log_to_file
    from dlsys.train.ps.server import Server

    log_to_file(assignment.paths.logs / f"server-{index}.log")
    job = assignment.trained
    assert isinstance(job, TrainJob), "agents have no servers"
    torch.set_num_threads(1)  # no CPU was asked for; the workers have them all
    Server(job, key, listener, snapshot=snapshot).start()
