"""A worker's side of the parameter servers: one connection to each, used side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

from dlsys.errors import WorkerDiedError
from dlsys.train.ps.parts import Part, part, receive_parts, receive_tree, send_parts, send_tree, touched
from dlsys.train.ps.shards import Layout
from dlsys.train.ps.wire import Channel, Servers

_Answer = TypeVar("_Answer")
# A killed server of an asynchronous run is back within this time, or the run's attempt ends.
_PATIENCE = 60.0
_PAUSE = 0.2


class _Link:
    """The connection to one server.

    Args:
        patient: whether a server that died may come back while the run goes on.
    """

    def __init__(
        self,
        address: str,
        key: str,
        layout: Layout,
        parameters: Mapping[str, Tensor],
        rank: int,
        size: int,
        patient: bool,
    ) -> None:
        self._address, self._key, self.layout = address, key, layout
        self._rank, self._size, self._patient = rank, size, patient
        self._live = [shard.of(parameters[shard.name].detach()) for shard in layout.shards]
        # Sockets fill the CPU's memory; a replica on a GPU gets a copy of it.
        self._weights = [torch.empty_like(w, device="cpu") if w.is_cuda else w for w in self._live]
        self._clocks = dict.fromkeys(layout.phases, 0)
        self._earlier = [0, 0]
        self._channel = self._join(again=False)

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes sent and received since the start."""
        return self._earlier[0] + self._channel.sent, self._earlier[1] + self._channel.received

    def _join(self, *, again: bool) -> Channel:
        try:
            channel = Channel.connect(self._address, self._key)
        except OSError as error:
            raise WorkerDiedError(f"no parameter server answers at {self._address}: {error}") from error
        hello = {"layout": self.layout.to_dict(), "rank": self._rank, "size": self._size}
        try:
            channel.send({**hello, "clocks": self._clocks, "again": again})
            channel.answer()
        except BaseException:
            channel.close()
            raise
        return channel

    def talk(self, conversation: Callable[[Channel], _Answer]) -> _Answer:
        """Has a conversation with the server; begins it anew with one that has come back.

        Raises:
            WorkerDiedError: the server is gone, or another worker that it waits for.
            RunError: the server failed.
        """
        while True:
            try:
                return conversation(self._channel)
            except OSError as error:
                self._channel.close()
                if not self._patient:
                    raise WorkerDiedError(f"lost the parameter server at {self._address}") from error
                self._earlier = list(self.traffic)
                self._channel = self._rejoin()

    def _rejoin(self) -> Channel:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return self._join(again=True)
            except (WorkerDiedError, OSError) as error:
                if time.monotonic() > deadline:
                    raise WorkerDiedError(
                        f"the parameter server at {self._address} did not come back in {_PATIENCE:g} s"
                    ) from error
                time.sleep(_PAUSE)

    def parts(self, phase: str, gradients: Mapping[str, Tensor | None]) -> list[Part]:
        """A phase's gradients as they travel to this server; parameters without one are left out."""
        found = []
        for number in self.layout.phases[phase]:
            shard = self.layout.shards[number]
            gradient = gradients[shard.name]
            if gradient is not None:
                values = shard.of(gradient).cpu()
                found.append(part(number, shard, values, touched(values) if shard.table else None))
        return found

    def receive(self, channel: Channel) -> None:
        """Receives changed weights into the replica."""
        for number in receive_parts(channel, channel.answer(), self._weights, others_zero=False):
            if self._live[number] is not self._weights[number]:
                self._live[number].copy_(self._weights[number])

    def done(self, phase: str, step: int) -> None:
        """Remembers how far this worker is, for a server that has forgotten it."""
        self._clocks[phase] = step

    def close(self) -> None:
        self._channel.close()


class Client:
    """Pushes to and pulls from all servers.

    Args:
        servers: where they are.
        layouts: what each holds.
        parameters: this worker's replica by name; pulls change it in place.
        rank, size: this worker among how many.
        patient: whether a server that died may come back while the run goes on.

    Attributes:
        seconds: spent in talk with servers so far.

    Raises (every method):
        WorkerDiedError: a server is gone, or another worker that it waits for.
        RunError: a server failed.
    """

    def __init__(
        self,
        servers: Servers,
        layouts: Sequence[Layout],
        parameters: Mapping[str, Tensor],
        *,
        rank: int,
        size: int,
        patient: bool,
    ) -> None:
        self._links = [
            _Link(address, servers.key, layout, parameters, rank, size, patient)
            for address, layout in zip(servers.addresses, layouts, strict=True)
        ]
        self._pool = ThreadPoolExecutor(len(self._links), "dlsys-ps-client") if len(self._links) > 1 else None
        self.seconds = 0.0

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes sent and received since the start."""
        sent, received = zip(*(link.traffic for link in self._links), strict=True)
        return sum(sent), sum(received)

    def _each(self, conversation: Callable[[_Link, Channel], _Answer]) -> list[_Answer]:
        """The same conversation with every server at the same time; answers in their order."""
        begun = time.perf_counter()

        def talk(link: _Link) -> _Answer:
            return link.talk(lambda channel: conversation(link, channel))

        try:
            return list(self._pool.map(talk, self._links) if self._pool else map(talk, self._links))
        finally:
            self.seconds += time.perf_counter() - begun

    def gather(self, phase: str, gradients: Mapping[str, Tensor | None]) -> float:
        """Hands in this worker's gradients of a synchronous update.

        Returns:
            The norm of the whole mean gradient, penalties included: the same on every worker.
        """

        def conversation(link: _Link, channel: Channel) -> float:
            send_parts(channel, {"ask": "gather", "phase": phase}, link.parts(phase, gradients))
            return float(channel.answer()["square"])

        return float(sum(self._each(conversation)) ** 0.5)

    def apply(self, phase: str, hyper: Mapping[str, float | None], scale: float) -> None:
        """Has the gathered gradients, times `scale`, applied, and gets the weights they make."""

        def conversation(link: _Link, channel: Channel) -> None:
            channel.send({"ask": "apply", "phase": phase, "hyper": dict(hyper), "scale": scale})
            link.receive(channel)

        self._each(conversation)

    def push(
        self,
        phase: str,
        step: int,
        gradients: Mapping[str, Tensor | None],
        hyper: Mapping[str, float | None],
        scale: float,
        share: tuple[int, int] | None = None,
    ) -> None:
        """Has gradients, times `scale`, applied at once, and gets what has changed meanwhile.

        Args:
            share: the meeting before which they are handed out, and their number; servers apply none twice.
        """
        ask = {"ask": "push", "phase": phase, "step": step, "hyper": dict(hyper), "scale": scale}
        ask["share"] = share

        def conversation(link: _Link, channel: Channel) -> None:
            send_parts(channel, ask, link.parts(phase, gradients))
            link.done(phase, step)
            link.receive(channel)

        self._each(conversation)

    def pull(self) -> None:
        """Gets every weight that has changed."""

        def conversation(link: _Link, channel: Channel) -> None:
            channel.send({"ask": "pull"})
            link.receive(channel)

        self._each(conversation)

    def load(self, parameters: Mapping[str, Tensor], states: Mapping[str, Mapping[str, Any]]) -> None:
        """Replaces all weights and the optimizers' state (by phase and parameter name)."""

        def conversation(link: _Link, channel: Channel) -> None:
            shards = link.layout.shards
            tree = {
                "weights": {i: shard.of(parameters[shard.name]).cpu() for i, shard in enumerate(shards)},
                "states": {
                    phase: {
                        number: _cut(states[phase][shards[number].name], parameters, link.layout, number)
                        for number in numbers
                        if shards[number].name in states.get(phase, {})
                    }
                    for phase, numbers in link.layout.phases.items()
                },
            }
            send_tree(channel, {"ask": "load"}, tree)
            channel.answer()

        self._each(conversation)

    def states(self) -> dict[str, dict[str, dict[str, Any]]]:
        """The optimizers' state, whole, by phase and parameter name."""

        def conversation(_: _Link, channel: Channel) -> Any:
            channel.send({"ask": "state"})
            return receive_tree(channel, channel.answer())

        pieces: dict[str, dict[str, list[tuple[int, tuple[int, ...], dict[str, Any]]]]] = {}
        for link, states in zip(self._links, self._each(conversation), strict=True):
            for phase, by_number in states.items():
                for number, values in by_number.items():
                    shard = link.layout.shards[int(number)]
                    found = pieces.setdefault(phase, {}).setdefault(shard.name, [])
                    found.append((shard.start, shard.shape, values))
        return {
            phase: {name: _joined(found) for name, found in by_name.items()}
            for phase, by_name in pieces.items()
        }

    def lags(self) -> dict[int, int]:
        """How stale pushes to the first server were since this was asked last: a histogram."""

        def conversation(channel: Channel) -> dict[int, int]:
            channel.send({"ask": "lags"})
            return {int(lag): int(count) for lag, count in channel.answer()["lags"]}

        return self._links[0].talk(conversation)

    def close(self) -> None:
        for link in self._links:
            link.close()
        if self._pool:
            self._pool.shutdown()


def _cut(state: Mapping[str, Any], parameters: Mapping[str, Tensor], layout: Layout, number: int) -> Any:
    """A shard's part of a parameter's state: of what is shaped like the parameter, its rows."""
    shard = layout.shards[number]
    whole = parameters[shard.name].shape
    return {
        key: shard.of(value).cpu() if isinstance(value, Tensor) and value.shape == whole else value
        for key, value in state.items()
    }


def _joined(pieces: list[tuple[int, tuple[int, ...], dict[str, Any]]]) -> dict[str, Any]:
    """The state of a parameter from its shards': what is shaped like them is joined by rows."""
    pieces = sorted(pieces, key=lambda piece: piece[0])
    _, shape, first = pieces[0]
    if len(pieces) == 1:
        return first
    return {
        key: torch.cat([values[key] for _, _, values in pieces])
        if isinstance(value, Tensor) and tuple(value.shape) == shape
        else value
        for key, value in first.items()
    }
