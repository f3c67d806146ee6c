"""Who this worker is among how many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


def backends(device: str) -> str:
    """What torch calls the backends of a process group whose workers compute on `cpu` or `cuda`.

    Workers with GPUs also send what lies in the CPU's memory, such as what fsdp offloads there.
    """
    return "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"


@dataclass(frozen=True)
class World:
    """The workers of a run as one of them sees it; made by whoever launched it.

    A world of more than one needs an initialised `torch.distributed` process group.

    Attributes:
        rank: this worker, from 0.
        local_rank: this worker among those of its machine.
        size: workers.
        device: where its tensors live.
        backend: of the process group, as `backends` says; empty for one worker.
    """

    rank: int = 0
    local_rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - immutable
    backend: str = ""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def members(self) -> tuple[int, ...]:
        """The ranks whose parts were in the last meeting: all, where losing one ends the attempt."""
        return tuple(range(self.size))

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all workers, in place; any shape."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def sum_all(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The sums over all workers of several tensors, in one message of float64."""
        if self.size == 1 or not tensors:
            return list(tensors)
        flat = self.sum(torch.cat([t.detach().double().flatten() for t in tensors]))
        parts = torch.split(flat, [t.numel() for t in tensors])
        return [part.view(t.shape) for part, t in zip(parts, tensors, strict=True)]

    def join(self, rows: Tensor) -> Tensor:
        """Every worker's rows (n, …), one worker's after another's; float64, of any n.

        As a sum of what has each worker's rows in a place of its own, and zeros elsewhere: wherever sums can
        be made, rows can be joined.
        """
        if self.size == 1:
            return rows
        counts = torch.zeros(self.size, dtype=torch.float64, device=rows.device)
        counts[self.rank] = len(rows)
        ends = self.sum(counts).cumsum(0).long().tolist()
        joined = rows.new_zeros(ends[-1], *rows.shape[1:])
        joined[ends[self.rank] - len(rows) : ends[self.rank]] = rows
        return self.sum(joined) if len(joined) else joined

    def max(self, value: float) -> float:
        """The largest value of all workers."""
        if self.size == 1:
            return value
        found = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return float(found.item())

    def share_buffers(self, module: nn.Module) -> None:
        """Gives every worker rank 0's buffers: of their running statistics, these count, as under DDP."""
        if self.size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)

    def gather(self, value: object) -> list[object]:
        """Every worker's value on rank 0, in order of ranks; an empty list elsewhere."""
        if self.size == 1:
            return [value]
        found: list[object] | None = [None] * self.size if self.is_main else None
        dist.gather_object(value, found)
        return found or []
