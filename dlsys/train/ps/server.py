"""One parameter server: answers workers, and makes them wait for each other as the mode asks."""

from __future__ import annotations

import socket
import threading
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlsys.spec.train.job import TrainJob
from dlsys.spec.train.strategy import PS
from dlsys.train.checkpoint.tree import flatten, unflatten
from dlsys.train.ps.parts import receive_parts, receive_tree, send_parts, send_tree
from dlsys.train.ps.service import Lost, Service
from dlsys.train.ps.shards import Layout
from dlsys.train.ps.store import Store, read_snapshot, write_snapshot
from dlsys.train.ps.wire import Channel


@dataclass
class _Round:
    """One synchronous update on its way.

    Attributes:
        pushes: gradients by rank and shard.
        square: of the mean gradient's norm, once all are here.
        applied: whether the weights have moved.
    """

    pushes: dict[int, dict[int, Tensor]] = field(default_factory=dict)
    square: float | None = None
    applied: bool = False


@dataclass
class _Member:
    """What the server knows of a connected worker.

    Attributes:
        gradients: where its gradients are received.
        seen: for each phase, up to which version it has the weights.
        updates: for each phase, the updates that are in them.
        round: for each phase, the update it takes part in.
    """

    rank: int
    gradients: list[Tensor]
    seen: dict[str, int] = field(default_factory=lambda: defaultdict(lambda: -1))
    updates: Counter[str] = field(default_factory=Counter)
    round: dict[str, _Round] = field(default_factory=dict)


class Server(Service[_Member]):
    """Serves workers from `start` to `close`.

    Args:
        job: names the optimizer, the regularizers and the strategy's options.
        key: the run's secret, in hex.
        listener: a bound socket that listens.
        snapshot: the file from which a killed server of an asynchronous run comes back.
    """

    name = "a parameter server"

    def __init__(
        self, job: TrainJob, key: str, listener: socket.socket, *, snapshot: Path | None = None
    ) -> None:
        assert isinstance(job.strategy, PS)
        super().__init__(key, listener)
        self._job, self._options = job, job.strategy
        self._snapshot = None if job.strategy.in_step else snapshot
        self._store = read_snapshot(self._snapshot, job) if self._snapshot else None
        self._rounds: dict[str, _Round] = defaultdict(_Round)
        self._size = 0
        self._clocks: dict[str, dict[int, int]] = defaultdict(dict)
        self._lags: Counter[int] = Counter()
        self._gone: set[int] = set()
        # For each phase, the last meeting from which shares came, and the numbers of those.
        self._shares: dict[str, tuple[int, set[int]]] = defaultdict(lambda: (0, set()))
        self._writer: threading.Thread | None = None

    def close(self) -> None:
        super().close()
        if self._writer:
            self._writer.join(timeout=10)

    def _left(self, member: _Member) -> None:
        self._gone.add(member.rank)

    def _join(self, channel: Channel) -> _Member:
        message = channel.header()
        layout, rank = Layout.from_dict(message["layout"]), int(message["rank"])
        with self._moved:
            if self._store is None:
                if message["again"]:
                    raise Lost("the server has come back without a snapshot")
                self._store = Store(self._job, layout)
            elif self._store.layout != layout:
                raise ValueError(f"rank {rank} has another model than the server")
            self._size = int(message["size"])
            for phase, clock in message["clocks"].items():
                self._clocks[phase][rank] = clock
            self._gone.discard(rank)
        channel.send({})
        return _Member(rank, [torch.empty_like(weight.detach()) for weight in self._store.weights])

    def _check(self) -> None:
        super()._check()
        if self._gone:
            raise Lost(f"lost worker {', '.join(map(str, sorted(self._gone)))}")

    # -- what workers ask for

    def _on_gather(self, channel: Channel, member: _Member, message: dict[str, Any]) -> None:
        """A worker's gradients of a synchronous update; answers when all workers' are here."""
        phase, store = message["phase"], self._ready
        numbers = receive_parts(channel, message, member.gradients, others_zero=True)
        with self._moved:
            current = self._rounds[phase]
            if current.square is not None:  # which no worker asked to apply: a gradient overflowed
                current = self._rounds[phase] = _Round()
            current.pushes[member.rank] = {number: member.gradients[number] for number in numbers}
            member.round[phase] = current
            if len(current.pushes) == self._size:
                current.square = store.average(phase, [push for _, push in sorted(current.pushes.items())])
                self._moved.notify_all()
            self._wait(lambda: current.square is not None)
        channel.send({"square": current.square})

    def _on_apply(self, channel: Channel, member: _Member, message: dict[str, Any]) -> None:
        """The update itself, which every worker asks for and the first one gets done."""
        phase = message["phase"]
        with self._moved:
            current = member.round[phase]
            if not current.applied:
                self._ready.step(phase, message["hyper"], message["scale"])
                current.applied = True
                self._rounds[phase] = _Round()
        self._send_changed(channel, member, [phase])

    def _on_push(self, channel: Channel, member: _Member, message: dict[str, Any]) -> None:
        """A worker's gradients, applied at once; under `ssp`, the answer waits for the slowest."""
        phase, step, store = message["phase"], message["step"], self._ready
        numbers = receive_parts(channel, message, member.gradients, others_zero=True)
        bound = self._options.staleness if self._options.mode == "ssp" else None
        with self._moved:
            if self._is_new(phase, message["share"]):
                if bound is None:
                    self._lags[store.updates[phase] - member.updates[phase]] += 1
                store.take(phase, {number: member.gradients[number] for number in numbers})
                store.step(phase, message["hyper"], message["scale"])
            clocks = self._clocks[phase]
            clocks[member.rank] = step
            self._moved.notify_all()
            if self._snapshot and store.updates.total() % self._options.snapshot == 0:
                self._save(store)
            if bound is not None:
                self._wait(lambda: len(clocks) == self._size and min(clocks.values()) >= step - bound)
                self._lags[step - min(clocks.values())] += 1
        self._send_changed(channel, member, [phase])

    def _is_new(self, phase: str, share: tuple[int, int] | None) -> bool:
        """Whether a share has yet to be applied, which it then counts as; the lock is held.

        It comes twice when a worker dies between its push and its next word: another one makes it again.
        """
        if share is None:
            return True
        meeting, number = share
        last, done = self._shares[phase]
        if meeting > last:  # and nobody makes shares of the last one any more
            last, done = self._shares[phase] = meeting, set()
        if meeting < last or number in done:
            return False
        done.add(number)
        return True

    def _on_pull(self, channel: Channel, member: _Member, message: dict[str, Any]) -> None:
        """All weights that changed since this worker got them."""
        self._send_changed(channel, member, list(self._ready.layout.phases))

    def _send_changed(self, channel: Channel, member: _Member, phases: list[str]) -> None:
        store = self._ready
        with self._moved:
            parts = {p.number: p for phase in phases for p in store.changed(phase, member.seen[phase])}
            for phase in phases:
                member.seen[phase], member.updates[phase] = store.version, store.updates[phase]
        # Outside of the lock: an asynchronous update may change weights as they leave, as Hogwild
        # allows. What it changed has a later version and comes again.
        send_parts(channel, {}, parts.values())

    def _on_load(self, channel: Channel, member: _Member, message: dict[str, Any]) -> None:
        """A whole state, from rank 0."""
        state = receive_tree(channel, message)
        with self._moved:
            self._ready.load(state)
            if self._snapshot:
                self._save(self._ready, wait=True)
        channel.send({})

    def _on_state(self, channel: Channel, member: _Member, message: dict[str, Any]) -> None:
        """The optimizers' state; the worker has the weights already."""
        with self._moved:
            states = _copied(self._ready.state()["states"])
        send_tree(channel, {}, states)

    def _on_lags(self, channel: Channel, member: _Member, message: dict[str, Any]) -> None:
        """How stale pushes were since this was asked last: a histogram."""
        with self._moved:
            found, self._lags = self._lags, Counter()
        channel.send({"lags": sorted(found.items())})

    @property
    def _ready(self) -> Store:
        assert self._store is not None, "a worker that has joined made the store"
        return self._store

    def _save(self, store: Store, *, wait: bool = False) -> None:
        """Writes a snapshot in a thread, unless one is still being written; the caller holds the lock."""
        if self._writer is not None and self._writer.is_alive() and not wait:
            return
        assert self._snapshot is not None
        self._writer = threading.Thread(
            target=write_snapshot, args=(self._snapshot, store.layout, _copied(store.state())), daemon=True
        )
        self._writer.start()
        if wait:
            self._writer.join()


def _copied(tree: Any) -> Any:
    tensors: dict[str, Tensor] = {}
    flat = flatten(tree, tensors, "")
    return unflatten(flat, {name: tensor.clone() for name, tensor in tensors.items()})
