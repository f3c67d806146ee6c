"""Where workers meet that outlive each other, and get their shares of the work.

gloo's collectives need everybody; here, who dies is missed no longer than the system takes to close
its connection. The meeting point is a thread of rank 0, and not a parameter server: a server may
die and come back from a snapshot that knows nothing of meetings, while rank 0, which writes the
checkpoints, takes the attempt with it in any case.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._pytree import tree_map_only

from dlsys.errors import WorkerDiedError
from dlsys.train.ps.parts import receive_tree, send_tree
from dlsys.train.ps.service import Service
from dlsys.train.ps.wire import Channel, Servers
from dlsys.train.world import World

# Seconds for the others to get rank 0's last answers.
_PATIENCE = 10.0


class Meetings(Protocol):
    """A worker's side of the meeting point.

    Attributes:
        members: the ranks that took part in the last meeting; the same for all of them.

    Raises (every method):
        WorkerDiedError: rank 0 is gone.
    """

    members: tuple[int, ...]

    def meet(self, value: Any) -> list[Any]:
        """Every worker's value (nested, with tensors), in order of ranks.

        Who dies has no part in it, unless it was sent before.
        """

    def take(self, meeting: int, common: int) -> int | None:
        """The next share for this worker to make; the one that it took before is then done.

        Shares below `common` go to whoever asks; then each worker gets `common + rank`; then those
        that the dead have left. None, once all are done.

        Args:
            meeting: the step, from 1, at which workers meet next.
        """

    def close(self) -> None: ...


def open_meetings(world: World, servers: Servers, note: Callable[[str], None]) -> Meetings:
    """The meeting point on rank 0, connections to it elsewhere; called on all workers of a process group.

    Args:
        note: is told, on rank 0, who was lost.
    """
    told: list[object] = [None]
    host = None
    if world.is_main:
        host = Host(_address_toward(servers.addresses[0]), servers.key, world.size, note)
        host.start()
        told = [host.address]
    dist.broadcast_object_list(told)
    return host or Guest(str(told[0]), servers.key, world.rank, world.size)


def _address_toward(peer: str) -> str:
    """This machine's address in the network in which a peer is: nothing is sent."""
    name, _, port = peer.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((name, int(port)))
        return str(probe.getsockname()[0])


@dataclass
class _Round:
    """One meeting on its way."""

    values: dict[int, Any] = field(default_factory=dict)
    whole: bool = False


@dataclass
class _Span:
    """The shares of the steps up to a meeting.

    Attributes:
        given: how many of the `common` ones somebody has taken.
        left: those of workers that are gone.
        held: by rank, the one it makes.
        last: ranks that have got their own.
    """

    meeting: int = 0
    common: int = 0
    given: int = 0
    left: list[int] = field(default_factory=list)
    held: dict[int, int] = field(default_factory=dict)
    last: set[int] = field(default_factory=set)

    def next(self, rank: int) -> int | None:
        """The next share for a rank; None if there is none for it, perhaps only for now."""
        if self.given < self.common:
            share = self.given
            self.given += 1
        elif rank not in self.last:
            share = self.common + rank
            self.last.add(rank)
        elif self.left:
            share = self.left.pop()
        else:
            return None
        self.held[rank] = share
        return share

    def lose(self, rank: int) -> None:
        """Leaves what a rank has not made to the others."""
        if rank in self.held:
            self.left.append(self.held.pop(rank))
        if rank not in self.last:
            self.left.append(self.common + rank)


class Host(Service[int]):
    """The meeting point, and rank 0's own side of it.

    Args:
        host: the address to listen at.
        key: the run's secret, in hex.
        size: workers.
        note: is told who was lost.
    """

    name = "rank 0"

    def __init__(self, host: str, key: str, size: int, note: Callable[[str], None]) -> None:
        super().__init__(key, socket.create_server((host, 0)))
        self.members = tuple(range(size))
        self._size = size
        self._live = set(self.members)
        self._note = note
        self._round = _Round()
        self._span = _Span()
        self._asked = 0

    def meet(self, value: Any) -> list[Any]:
        found = self._meet(0, value)
        if gone := [str(rank) for rank in self.members if rank not in found]:
            workers = f"worker {gone[0]}" if len(gone) == 1 else f"workers {', '.join(gone)}"
            self._note(f"lost {workers} by step {self._span.meeting}; {len(found)} of {self._size} go on")
        self.members = tuple(found)
        return list(found.values())

    def take(self, meeting: int, common: int) -> int | None:
        return self._take(0, meeting, common)

    def close(self) -> None:
        with self._moved:
            self._closed = True
            self._moved.notify_all()
            # Who was in the last meeting gets its answer; who waits for another one is told.
            self._moved.wait_for(lambda: not self._asked, _PATIENCE)
        super().close()

    def _meet(self, rank: int, value: Any) -> dict[int, Any]:
        with self._moved:
            current = self._round
            current.values[rank] = value

            def whole() -> bool:
                if not current.whole and self._live <= current.values.keys():
                    current.whole = True
                    self._round = _Round()
                    self._moved.notify_all()
                return current.whole

            self._wait(whole)
        return dict(sorted(current.values.items()))

    def _take(self, rank: int, meeting: int, common: int) -> int | None:
        with self._moved:
            if self._span.meeting != meeting:
                self._span = _Span(meeting, common)
                for gone in set(range(self._size)) - self._live:
                    self._span.lose(gone)
            span, share = self._span, None
            span.held.pop(rank, None)

            def ready() -> bool:
                nonlocal share
                share = span.next(rank)
                return share is not None or not (span.held or self._live - span.last)

            self._wait(ready)
            if share is None:
                self._moved.notify_all()
            return share

    def _join(self, channel: Channel) -> int:
        rank = int(channel.header()["rank"])
        channel.send({})
        return rank

    def _left(self, member: int) -> None:
        self._live.discard(member)
        self._span.lose(member)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        with self._moved:
            self._asked += 1
        try:
            yield
        finally:
            with self._moved:
                self._asked -= 1
                self._moved.notify_all()

    def _on_meet(self, channel: Channel, member: int, message: dict[str, Any]) -> None:
        with self._answering():
            found = self._meet(member, receive_tree(channel, message))
            send_tree(channel, {}, found)

    def _on_take(self, channel: Channel, member: int, message: dict[str, Any]) -> None:
        with self._answering():
            channel.send({"share": self._take(member, message["meeting"], message["common"])})


class Guest:
    """Another worker's side of the meeting point.

    Args:
        address, key: the meeting point's, and the run's secret.
        rank, size: this worker among how many.
    """

    def __init__(self, address: str, key: str, rank: int, size: int) -> None:
        self.members = tuple(range(size))
        with _rank_0_lives():
            self._channel = Channel.connect(address, key)
            self._channel.send({"rank": rank})
            self._channel.answer()

    def meet(self, value: Any) -> list[Any]:
        with _rank_0_lives():
            send_tree(self._channel, {"ask": "meet"}, value)
            found = receive_tree(self._channel, self._channel.answer())
        self.members = tuple(int(rank) for rank in found)
        return list(found.values())

    def take(self, meeting: int, common: int) -> int | None:
        with _rank_0_lives():
            self._channel.send({"ask": "take", "meeting": meeting, "common": common})
            share: int | None = self._channel.answer()["share"]
        return share

    def close(self) -> None:
        self._channel.close()


@contextmanager
def _rank_0_lives() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WorkerDiedError("lost rank 0, where workers meet") from error


@dataclass(frozen=True)
class ElasticWorld(World):
    """Workers of which all but rank 0 may be lost; buffers are never shared, rank 0's count.

    Attributes:
        meetings: where they meet.
    """

    meetings: Meetings = field(kw_only=True)

    @property
    def members(self) -> tuple[int, ...]:
        return self.meetings.members

    def sum(self, values: Tensor) -> Tensor:
        # A copy: others may still be sent this worker's part when it has the sum.
        found = self.meetings.meet(values.detach().cpu().clone())
        return values.copy_(reduce(torch.add, found))

    def max(self, value: float) -> float:
        return float(max(self.meetings.meet(value)))

    def gather(self, value: object) -> list[object]:
        found = self.meetings.meet(tree_map_only(Tensor, Tensor.cpu, value))
        return found if self.is_main else []
