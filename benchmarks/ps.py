"""One push and pull of a 40 MB model through parameter servers, against gloo's all-reduce of as much.

    python benchmarks/ps.py [--repetitions 10]

Two workers and two servers, each a process of its own with one thread for torch. A round is what a
synchronous step does: workers push gradients, servers add them, agree on the norm and make an SGD
update, workers pull the weights. All-reduce leaves the update to the workers, and it is not counted.
"""

from __future__ import annotations

import argparse
import multiprocessing
import secrets
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.distributed as dist
from side_by_side import compare, report
from torch import Tensor

from dlsys.spec.train.job import TrainJob
from dlsys.train.ps.client import Client
from dlsys.train.ps.server import Server
from dlsys.train.ps.shards import share_out
from dlsys.train.ps.wire import Servers

WORKERS, SERVERS = 2, 2
TENSORS, ROWS, COLUMNS = 10, 1000, 1000
JOB = {
    "kind": "train",
    "name": "ps",
    "workload": "lenet-5",
    "data": {"source": "digits"},
    "batch_size": 64,
    "stop": {"steps": 1},
    "strategy": {"name": "ps", "servers": SERVERS},
}


def serve(key: str, parent: Connection) -> None:
    torch.set_num_threads(1)
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(TrainJob.model_validate(JOB), key, listener)
    server.start()
    parent.send(server.address)
    parent.recv()


def work(rank: int, servers: Servers, meet: str, parent: Connection) -> None:
    """Does rounds of either kind as the parent asks, and tells their seconds."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=WORKERS)
    weights = {f"w{i}": torch.zeros(ROWS, COLUMNS) for i in range(TENSORS)}
    gradients: dict[str, Tensor | None] = {name: torch.rand(ROWS, COLUMNS) for name in weights}
    flat = torch.rand(TENSORS * ROWS * COLUMNS)
    layouts = share_out({"main": list(weights.items())}, (), servers=SERVERS, split_bytes=4 * 2**20)
    client = Client(servers, layouts, weights, rank=rank, size=WORKERS, patient=False)

    def through_servers() -> None:
        client.gather("main", gradients)
        client.apply("main", {"lr": 0.1, "momentum": None}, 1.0)

    ways: dict[str, Callable[[], object]] = {"ps": through_servers, "gloo": lambda: dist.all_reduce(flat)}
    while (way := parent.recv()) is not None:
        dist.barrier()
        begun = time.perf_counter()
        ways[way]()
        parent.send(time.perf_counter() - begun)
    client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=10)
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    started = []

    def start(target: Callable[..., None], *rest: object) -> Connection:
        ours, theirs = context.Pipe()
        process = context.Process(target=target, args=(*rest, theirs), daemon=True)
        process.start()
        started.append((process, ours))
        return ours

    key = secrets.token_hex(32)
    hosts = [start(serve, key) for _ in range(SERVERS)]
    servers = Servers(tuple(host.recv() for host in hosts), key)
    with tempfile.TemporaryDirectory() as folder:
        workers = [start(work, rank, servers, str(Path(folder) / "meet")) for rank in range(WORKERS)]

        def rounds(way: str) -> float:
            """Seconds until the last worker was done, the median of a few rounds."""
            found = []
            for _ in range(3):
                for worker in workers:
                    worker.send(way)
                found.append(max(worker.recv() for worker in workers))
            return statistics.median(found)

        row = compare(
            "push and pull 40 MB, 2 workers, 2 servers",
            "gloo all-reduce of 40 MB",
            lambda: rounds("ps"),
            lambda: rounds("gloo"),
            goal="<= 2.5",
            runs=arguments.repetitions,
        )
        for _, pipe in reversed(started):
            pipe.send(None)
        for process, _ in started:
            process.join(10)
    report("ps", [row])


if __name__ == "__main__":
    main()
