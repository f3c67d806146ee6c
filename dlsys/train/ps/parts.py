"""Shards on their way: whole ones, and of embeddings only the rows that matter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlsys.train.checkpoint.tree import flatten, unflatten
from dlsys.train.ps.shards import Shard
from dlsys.train.ps.wire import Channel

_INDEX = torch.int32
_WHOLE = -1


class Part(NamedTuple):
    """What travels of one shard.

    Attributes:
        number: the shard's, in its server's layout.
        rows: which of its rows, ascending; None for all.
        values: the shard, or those rows of it.
    """

    number: int
    rows: Tensor | None
    values: Tensor


def part(number: int, shard: Shard, values: Tensor, rows: Tensor | None) -> Part:
    """The whole shard, or only some rows where that is less to send.

    Args:
        values: the whole shard's.
        rows: the numbers of those that must travel; None for all.
    """
    if rows is not None and len(rows) * (shard.row_bytes + _INDEX.itemsize) < shard.bytes:
        return Part(number, rows, values[rows])
    return Part(number, None, values)


def touched(gradient: Tensor) -> Tensor:
    """The numbers of the rows that are not all 0; a NaN is not 0."""
    return gradient.flatten(1).any(dim=1).nonzero().squeeze(1)


def send_parts(channel: Channel, header: dict[str, Any], parts: Iterable[Part]) -> None:
    listed, tensors = [], []
    for number, rows, values in parts:
        listed.append([number, _WHOLE if rows is None else len(rows)])
        tensors += [values] if rows is None else [rows.to(_INDEX), values]
    channel.send({**header, "parts": listed}, tensors)


def receive_parts(
    channel: Channel, header: dict[str, Any], targets: Sequence[Tensor], *, others_zero: bool
) -> list[int]:
    """Receives what `send_parts` sent into the shards' own tensors; the numbers of those that came.

    Args:
        others_zero: whether rows that did not travel become 0, or stay as they are.
    """
    buffers, scattered = [], []
    for number, count in header["parts"]:
        target = targets[number]
        if count == _WHOLE:
            buffers.append(target)
            continue
        rows = torch.empty(count, dtype=_INDEX)
        values = torch.empty((count, *target.shape[1:]), dtype=target.dtype)
        buffers += [rows, values]
        scattered.append((target, rows, values))
    channel.fill(buffers)
    for target, rows, values in scattered:
        if others_zero:
            target.zero_()
        target[rows] = values
    return [number for number, _ in header["parts"]]


def send_tree(channel: Channel, header: dict[str, Any], tree: Any) -> None:
    """A header, and nested state with tensors."""
    tensors: dict[str, Tensor] = {}
    flat = flatten(tree, tensors, "")
    table = [[name, str(t.dtype).removeprefix("torch."), list(t.shape)] for name, t in tensors.items()]
    channel.send({**header, "tree": flat, "tensors": table}, list(tensors.values()))


def receive_tree(channel: Channel, header: dict[str, Any]) -> Any:
    """What `send_tree` sent."""
    tensors = {
        name: torch.empty(shape, dtype=getattr(torch, dtype)) for name, dtype, shape in header["tensors"]
    }
    channel.fill(list(tensors.values()))
    return unflatten(header["tree"], tensors)
