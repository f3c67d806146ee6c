"""Ring all-reduce (Patarasuk & Yuan 2009, doi:10.1016/j.jpdc.2008.09.002) on isend and irecv.

The tensor is cut into one part a rank, and each part into chunks. Rank r sends to r + 1 and receives
from r − 1. In the first n − 1 rounds a part goes round and each rank adds its own (reduce-scatter);
in the other n − 1 its sum goes round and is kept (all-gather):

    round            0        1        2        3       n = 3
    rank 0 sends   part 0   part 2   part 1   part 0
    rank 1 sends   part 1   part 0   part 2   part 1
    rank 2 sends   part 2   part 1   part 0   part 2
                   └─ sums grow ─┘   └─ sums travel ┘

What a rank sends in a round is what it received in the round before. A chunk is sent on as soon as
it has arrived, so adding one overlaps with receiving the next. Each rank sends 2·(n−1)/n of the
tensor's bytes, the least that any all-reduce can.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.distributed as dist
from torch import Tensor

# Chunks whose receives are posted ahead while sums grow: each takes a chunk's memory.
_AHEAD = 4


class RingAllReduce:
    """Sums CPU tensors over all ranks; made by all of them, and one call at a time.

    It talks in gloo groups of its own, so that its messages never mix with others'.

    Args:
        chunk_bytes: the largest message. Smaller ones fill the ring sooner, but each costs about
            0.1 ms of the cores' time, of two threads on either side.

    Attributes:
        sent_bytes: payload that this rank has sent so far.
    """

    def __init__(self, *, chunk_bytes: int = 4 << 20) -> None:
        self._rank, self._size = dist.get_rank(), dist.get_world_size()
        self._outward = self._inward = dist.new_group(backend="gloo")
        if self._size == 2:
            # Both neighbours are one peer. While a thread writes to a connection, gloo's own thread
            # asks for that connection's lock without a pause as long as there is something to read:
            # with one connection each way it has nothing to read there.
            groups = (self._outward, dist.new_group(backend="gloo"))
            self._outward, self._inward = groups[self._rank], groups[1 - self._rank]
        self._chunk_bytes = chunk_bytes
        self._scratch = torch.empty(0, dtype=torch.uint8)
        self.sent_bytes = 0

    def all_reduce(
        self, tensor: Tensor, *, wire: torch.dtype | None = None, residual: Tensor | None = None
    ) -> None:
        """Replaces `tensor` by its sum over all ranks, the same bits on each of them.

        Args:
            tensor: contiguous, on the CPU, of the same size and type on every rank.
            wire: the type in which it travels; None is its own. Only a narrower one is of use.
            residual: what a narrower wire rounded off on this rank, of the tensor's size and type.
                It is added to the tensor, and replaced by what this call rounds off: the sums
                over all ranks of tensors + residuals before, and of result + residuals after, are
                equal (error feedback, Seide et al. 2014).

        Raises:
            RuntimeError: a peer is gone, or did not answer within the group's timeout.
        """
        if self._size == 1 or tensor.numel() == 0:
            return
        flat, kept = tensor.view(-1), None if residual is None else residual.view(-1)
        size = self._size
        chunks = max(1, -(-flat.nbytes // (size * self._chunk_bytes)))
        edges = [flat.numel() * i // (size * chunks) for i in range(size * chunks + 1)]
        spans = [slice(start, end) for start, end in pairwise(edges)]
        # What is sent at each tick, `chunks` ticks after it was received; at first, this rank's part.
        order = [spans[(self._rank - i // chunks) % size * chunks + i % chunks] for i in range(size * chunks)]
        summing, ticks = (size - 1) * chunks, 2 * (size - 1) * chunks

        def received(tick: int) -> slice:
            return order[(tick + chunks) % len(order)]

        # `image` is what travels: the tensor, or its picture in the wire's type. A wire's chunks are
        # received in their places there; without one, those that are to be added wait in slots.
        image = flat if wire is None else self._room(flat.numel(), wire)
        ahead = summing if wire is not None else min(summing, _AHEAD)
        longest = max(span.stop - span.start for span in spans)
        slots = self._room(ahead * longest, flat.dtype).view(ahead, longest) if wire is None else None

        def inbox(tick: int) -> Tensor:
            span = received(tick)
            if slots is None or tick >= summing:
                return image[span]
            return slots[tick % ahead, : span.stop - span.start]

        def narrow(span: slice) -> None:
            if kept is not None:
                flat[span] += kept[span]
            image[span] = flat[span]
            if kept is not None:
                torch.sub(flat[span], image[span], out=kept[span])

        # A send waits for the peer's word that its receive is posted, which costs a turn of both
        # processes: so receives are posted as early as there is room. A sum may be received in its
        # place at any time, because it cannot come before what is there has gone out.
        receives = {i: self._receive(inbox(i), i) for i in (*range(ahead), *range(summing, ticks))}
        sends = []
        for tick in range(chunks):
            if wire is not None:
                narrow(order[tick])
            sends.append(self._send(image[order[tick]], tick))
        for tick in range(ticks):
            span = received(tick)
            _wait(receives.pop(tick))
            if tick < summing:
                flat[span] += inbox(tick)
                if tick + ahead < summing:
                    receives[tick + ahead] = self._receive(inbox(tick + ahead), tick + ahead)
                if wire is not None:
                    narrow(span)
            if tick + chunks < ticks:
                sends.append(self._send(image[span], tick + chunks))
            if wire is not None and tick + chunks >= summing:
                flat[span] = image[span]
        for work in sends:
            _wait(work)

    def _send(self, payload: Tensor, tag: int) -> dist.Work | None:
        if payload.numel() == 0:
            return None
        self.sent_bytes += payload.nbytes
        return dist.isend(payload, group=self._outward, group_dst=(self._rank + 1) % self._size, tag=tag)

    def _receive(self, into: Tensor, tag: int) -> dist.Work | None:
        if into.numel() == 0:
            return None
        return dist.irecv(into, group=self._inward, group_src=(self._rank - 1) % self._size, tag=tag)

    def _room(self, numel: int, dtype: torch.dtype) -> Tensor:
        """Scratch space of this many elements; it is kept from call to call."""
        wanted = numel * dtype.itemsize
        if self._scratch.numel() < wanted:
            self._scratch = torch.empty(wanted, dtype=torch.uint8)
        return self._scratch[:wanted].view(dtype)


def _wait(work: dist.Work | None) -> None:
    if work is not None:
        work.wait()
