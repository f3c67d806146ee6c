"""Which server holds what: tensors, cut along rows where they are large, shared out by bytes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Shard:
    """Some rows of a parameter. A row is never cut: max-norm needs whole ones.

    Attributes:
        name: the parameter's.
        start, stop: rows; of a scalar, 0 and 1.
        shape: of these rows.
        dtype: `float32`, …
        table: whether it is part of an embedding, of which a batch touches few rows.
    """

    name: str
    start: int
    stop: int
    shape: tuple[int, ...]
    dtype: str
    table: bool = False

    @property
    def torch_dtype(self) -> torch.dtype:
        found: torch.dtype = getattr(torch, self.dtype)
        return found

    @property
    def row_bytes(self) -> int:
        return self.bytes // max(1, self.stop - self.start)

    @property
    def bytes(self) -> int:
        return torch.Size(self.shape).numel() * self.torch_dtype.itemsize

    def of(self, whole: Tensor) -> Tensor:
        """This shard's part of a tensor that is shaped like the parameter: a view."""
        return whole[self.start : self.stop] if whole.dim() else whole


@dataclass(frozen=True)
class Layout:
    """What one server holds.

    Attributes:
        shards: in the order in which they travel.
        phases: for each phase, the numbers of the shards that it trains.
    """

    shards: tuple[Shard, ...]
    phases: Mapping[str, tuple[int, ...]]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Layout:
        shards = tuple(Shard(**{**shard, "shape": tuple(shard["shape"])}) for shard in value["shards"])
        return cls(shards, {name: tuple(numbers) for name, numbers in value["phases"].items()})


def share_out(
    phases: Mapping[str, Sequence[tuple[str, Tensor]]],
    tables: Collection[str],
    *,
    servers: int,
    split_bytes: int,
) -> list[Layout]:
    """One layout for each server; the same on every worker.

    The largest shard goes first, each to the server that has the fewest bytes (Graham 1969: no
    server gets more than 4/3 of the best possible share, if no single shard is larger).

    Args:
        phases: each phase's parameters by name.
        tables: names of embedding weights.
        servers: how many.
        split_bytes: larger tensors are cut into shards of about this size.
    """
    parameters = {name: tensor for named in phases.values() for name, tensor in named}
    place = {name: index for index, name in enumerate(parameters)}
    pieces = [
        piece
        for name, tensor in parameters.items()
        for piece in _cut(name, tensor, name in tables, split_bytes)
    ]
    held: list[list[Shard]] = [[] for _ in range(servers)]
    loads = [0] * servers
    for piece in sorted(pieces, key=lambda p: (-p.bytes, place[p.name], p.start)):
        least = loads.index(min(loads))
        held[least].append(piece)
        loads[least] += piece.bytes
    layouts = []
    for shards in held:
        shards.sort(key=lambda p: (place[p.name], p.start))
        names = {phase: {name for name, _ in named} for phase, named in phases.items()}
        numbers = {
            phase: tuple(i for i, shard in enumerate(shards) if shard.name in names[phase])
            for phase in phases
        }
        layouts.append(Layout(tuple(shards), numbers))
    return layouts


def _cut(name: str, tensor: Tensor, table: bool, split_bytes: int) -> list[Shard]:
    rows = len(tensor) if tensor.dim() else 1
    count = max(1, min(rows, -(-tensor.nbytes // split_bytes)))
    edges = [rows * i // count for i in range(count + 1)]
    dtype = str(tensor.dtype).removeprefix("torch.")
    return [
        Shard(name, start, stop, (stop - start, *tensor.shape[1:]) if tensor.dim() else (), dtype, table)
        for start, stop in pairwise(edges)
    ]
