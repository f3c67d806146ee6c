"""Servers and clients without a model: who waits for whom, what is added, what travels."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import QUICK, job
from parameter_servers import serving
from torch import Tensor

from dlsys.errors import RunError, WorkerDiedError
from dlsys.spec.train.job import TrainJob
from dlsys.train.ps import client as client_module
from dlsys.train.ps.client import Client
from dlsys.train.ps.server import Server
from dlsys.train.ps.shards import share_out
from dlsys.train.ps.wire import Servers

HYPER = {"lr": 0.5, "momentum": None}
ROWS, DIM = 1000, 16
SHAPES = {"table": (ROWS, DIM), "matrix": (40, 30), "bias": (30,), "scalar": ()}


def ps_job(options: str, *overrides: str) -> TrainJob:
    return job(QUICK, f"strategy={{name: ps, {options}}}", "resources.workers=2", *overrides)


def replica() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def gradients(seed: int, rows: tuple[int, ...] = ()) -> dict[str, Tensor | None]:
    """Random ones; of the table, only for some rows."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, Tensor | None] = {
        name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()
    }
    table = torch.zeros(ROWS, DIM)
    for row in rows:
        table[row] = torch.randn(DIM, generator=generator)
    return {**found, "table": table}


@contextmanager
def clients(
    job: TrainJob, servers: Servers, size: int = 2
) -> Iterator[list[tuple[Client, dict[str, Tensor]]]]:
    """Workers with equal replicas, the first of which has loaded its own."""
    replicas = [replica() for _ in range(size)]
    phases = {"main": list(replicas[0].items())}
    layouts = share_out(phases, {"table"}, servers=len(servers.addresses), split_bytes=2**15)
    made = [
        Client(servers, layouts, weights, rank=rank, size=size, patient=not job.strategy.in_step)
        for rank, weights in enumerate(replicas)
    ]
    made[0].load(replicas[0], {})
    for client in made:
        client.pull()
    try:
        yield list(zip(made, replicas, strict=True))
    finally:
        for client in made:
            client.close()


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(timeout=30) for future in [pool.submit(call) for call in calls]]


def update(client: Client, given: dict[str, Tensor | None], scale: float = 1.0) -> float:
    norm = client.gather("main", given)
    client.apply("main", HYPER, scale)
    return norm


def test_sums_are_taken_in_the_order_of_ranks() -> None:
    """Whoever comes first: the bits are those of (g0 + g1 + g2) / 3."""
    given = [gradients(rank, (rank, 7)) for rank in range(3)]
    # Floating-point addition is not associative: another order gives other bits.
    mean = {n: (given[0][n] + given[1][n] + given[2][n]).mul(1 / 3) for n in SHAPES}
    described = ps_job("servers: 2")
    with serving(described) as servers, clients(described, servers, 3) as workers:
        for turn in range(3):
            before = {name: weight.clone() for name, weight in workers[0][1].items()}
            order = [(rank + turn) % 3 for rank in range(3)]

            def late(rank: int, order: list[int] = order) -> float:
                time.sleep(0.02 * order.index(rank))
                return update(workers[rank][0], given[rank])

            norms = at_once(*(lambda rank=rank: late(rank) for rank in range(3)))
            whole = torch.cat([g.flatten() for g in mean.values()]).norm()
            assert norms[0] == norms[1] == norms[2] == pytest.approx(float(whole), rel=1e-5)
            for _, weights in workers:
                for name, weight in weights.items():
                    assert torch.equal(weight, torch.add(before[name], mean[name], alpha=-0.5)), name


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "rmsprop"])
def test_of_tables_only_touched_rows_travel(optimizer: str) -> None:
    described = ps_job("servers: 2", f"optimizer={{name: {optimizer}, lr: 0.1}}")
    rows = [(3, 500, 501, 999), (4, 500, 700)]
    tables = [{**dict.fromkeys(SHAPES), "table": gradients(r, rows[r])["table"]} for r in range(2)]
    with serving(described) as servers, clients(described, servers) as workers:
        before = [client.traffic for client, _ in workers]
        at_once(
            *(
                lambda c=client, g=given: update(c, g)
                for (client, _), given in zip(workers, tables, strict=True)
            )
        )
        assert torch.equal(workers[0][1]["table"], workers[1][1]["table"])
        moved = (workers[0][1]["table"] != replica()["table"]).any(1).nonzero().squeeze(1).tolist()
        assert moved == sorted({*rows[0], *rows[1]})
        for rank, (client, _) in enumerate(workers):
            sent, received = (now - then for now, then in zip(client.traffic, before[rank], strict=True))
            # Headers take some 100 bytes each, two of them to and from each server.
            assert sent <= 1.2 * len(rows[rank]) * DIM * 4 + 4 * 130
            assert received <= 1.2 * len(moved) * DIM * 4 + 4 * 130


@pytest.mark.parametrize(
    "overrides", [("optimizer={name: adam, lr: 0.1}",), ("regularize=[{name: l2, strength: 0.1}]",)]
)
def test_rows_that_the_rule_moves_without_a_gradient_come_too(overrides: tuple[str, ...]) -> None:
    described = ps_job("servers: 2", *overrides)
    with serving(described) as servers, clients(described, servers) as workers:
        for turn in range(2):
            given = [gradients(10 * turn + rank, (turn, 9)) for rank in range(2)]
            at_once(
                *(lambda c=client, g=g: update(c, g) for (client, _), g in zip(workers, given, strict=True))
            )
        alone = {name: torch.nn.Parameter(weight) for name, weight in replica().items()}
        decay = 0.2 if "l2" in overrides[0] else 0.0
        maker = torch.optim.Adam if "adam" in overrides[0] else torch.optim.SGD
        optimizer = maker(alone.values(), lr=0.5)
        for turn in range(2):
            given = [gradients(10 * turn + rank, (turn, 9)) for rank in range(2)]
            for name, weight in alone.items():
                weight.grad = (given[0][name] + given[1][name]) / 2
                if weight.dim() >= 2:
                    weight.grad += decay * weight.detach()
            optimizer.step()
        for _, weights in workers:
            for name, weight in weights.items():
                assert torch.allclose(weight, alone[name], atol=1e-5), name


def test_no_worker_is_further_ahead_than_the_bound() -> None:
    """Three steps of one worker while the other makes none: the third one waits."""
    described = ps_job("mode: ssp, staleness: 2")
    with serving(described) as servers, clients(described, servers) as ((fast, _), (slow, _)):
        done: list[int] = []

        def run() -> None:
            for step in range(1, 6):
                fast.push("main", step, gradients(step), HYPER, 1.0)
                done.append(step)

        thread = threading.Thread(target=run)
        thread.start()
        for step in range(1, 4):
            deadline = time.monotonic() + 20
            while len(done) < step + 1 and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.05)
            # After the slow worker's (step − 1)-th step, the fast one may begin step (step − 1) + 3.
            assert done == list(range(1, step + 2))
            slow.push("main", step, gradients(-step), HYPER, 1.0)
        thread.join(timeout=20)
        assert done == [1, 2, 3, 4, 5]
        lags = fast.lags()
        assert max(lags) == 2
        assert sum(lags.values()) == 8
        assert fast.lags() == {}


def test_async_counts_the_updates_that_a_push_did_not_know() -> None:
    described = ps_job("mode: async")
    with serving(described) as servers, clients(described, servers) as ((first, mine), (second, theirs)):
        for step in range(1, 4):
            first.push("main", step, gradients(step), HYPER, 1.0)
        second.push("main", 1, gradients(9), HYPER, 1.0)
        assert first.lags() == {0: 3, 3: 1}
        first.pull()
        for name in SHAPES:
            assert torch.equal(mine[name], theirs[name])


def test_a_lost_worker_is_told_to_who_waits_for_it() -> None:
    described = ps_job("servers: 2")
    with serving(described) as servers, clients(described, servers) as ((first, _), (second, _)):
        pool = ThreadPoolExecutor(1)
        waiting = pool.submit(first.gather, "main", gradients(0))
        time.sleep(0.05)
        second.close()
        with pytest.raises(WorkerDiedError, match="lost worker 1"):
            waiting.result(timeout=20)
        pool.shutdown()


def test_a_lost_worker_does_not_stop_asynchronous_ones() -> None:
    described = ps_job("mode: async")
    with serving(described) as servers, clients(described, servers) as ((first, _), (second, _)):
        second.close()
        first.push("main", 1, gradients(0), HYPER, 1.0)


def test_a_lost_server_ends_a_synchronous_run() -> None:
    described = ps_job("servers: 2")
    with ExitStack() as stack:
        servers = stack.enter_context(serving(described))
        with clients(described, servers) as ((first, _), _):
            stack.close()
            with pytest.raises(WorkerDiedError, match=r"lost the parameter server at 127\.0\.0\.1:"):
                first.gather("main", gradients(0))


def test_another_model_is_refused() -> None:
    described = ps_job("servers: 1")
    with serving(described) as servers, clients(described, servers):
        layouts = share_out({"main": [("other", torch.zeros(3))]}, (), servers=1, split_bytes=2048)
        with pytest.raises(RunError, match="rank 1 has another model than the server"):
            Client(servers, layouts, {"other": torch.zeros(3)}, rank=1, size=2, patient=False)


def test_a_server_comes_back_from_its_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the same port, with what it had two updates ago, the optimizer's state too; workers go on."""
    monkeypatch.setattr(client_module, "_PAUSE", 0.01)
    described = ps_job("mode: async, snapshot: 2", "optimizer={name: adam, lr: 0.1}")
    path = tmp_path / "server-0.safetensors"
    key, listener = secrets.token_hex(32), socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    killed = Server(described, key, listener, snapshot=path)
    killed.start()
    with ExitStack() as stack:
        servers = Servers((killed.address,), key)
        ((client, weights), _) = stack.enter_context(clients(described, servers))
        kept = {}
        for step in range(1, 4):
            client.push("main", step, gradients(step), HYPER, 1.0)
            if step == 2:
                kept = {name: weight.clone() for name, weight in weights.items()}
        assert not torch.equal(kept["matrix"], weights["matrix"])
        killed.close()
        back = Server(described, key, socket.create_server(address), snapshot=path)
        stack.callback(back.close)
        back.start()
        client.pull()
        for name, weight in weights.items():
            assert torch.equal(weight, kept[name]), name
        assert client.states()["main"]["bias"]["step"] == 2
        client.push("main", 4, gradients(4), HYPER, 1.0)
        assert client.states()["main"]["bias"]["step"] == 3
