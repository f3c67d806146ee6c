"""A batch on its way from one process to another: its tensors in a file in memory, the rest beside it.

The file has no name (memfd_create(2)), so /dev/shm may be as small as it likes. It is written with write(2),
which tells a want of memory as an error, where a mapping would end the process with SIGBUS; who gets it maps
it, and the memory is given back with the last tensor.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dlsys.data.loader import MicroBatch, StepBatch

# Bytes; what vector instructions and torch's own allocator keep.
_ALIGNED = 64


@dataclass(frozen=True)
class _Field:
    """Where a tensor lies in the file, and how it looks.

    Attributes:
        start: its first byte.
        extent: shape and stride, both in elements.
    """

    dtype: torch.dtype
    start: int
    extent: tuple[torch.Size, tuple[int, ...]]


@dataclass(frozen=True)
class Parcel:
    """What travels beside the file: each micro-batch's fields, its weight and its real rows."""

    micros: list[tuple[dict[str, _Field], float, int]]
    rows: int


def pack(batch: StepBatch) -> tuple[Parcel, int]:
    """A batch of CPU tensors as a parcel, and the file's descriptor, which is the caller's to close.

    Raises:
        OSError: there is no memory for it.
    """
    handle = os.memfd_create("dlsys-batch")
    try:
        with open(handle, "wb", closefd=False) as file:
            micros = []
            for micro in batch.micros:
                fields = {}
                for name, tensor in micro.batch.items():
                    tensor = _dense(tensor)
                    file.write(bytes(-file.tell() % _ALIGNED))
                    fields[name] = _Field(tensor.dtype, file.tell(), (tensor.shape, tensor.stride()))
                    file.write(_in_memory(tensor).view(torch.uint8).numpy().data)
                micros.append((fields, micro.weight, micro.real))
    except BaseException:
        os.close(handle)
        raise
    return Parcel(micros, batch.rows), handle


def unpack(parcel: Parcel, handle: int) -> StepBatch:
    """The batch, its tensors in the file's own memory; closes the file.

    Raises:
        OSError: the file cannot be mapped.
    """
    try:
        size = os.fstat(handle).st_size
        memory = mmap.mmap(handle, size) if size else None
    finally:
        os.close(handle)

    def tensors(fields: dict[str, _Field]) -> Iterator[tuple[str, Tensor]]:
        for name, field in fields.items():
            shape, stride = field.extent
            if memory is None or not shape.numel():
                yield name, torch.empty(shape, dtype=field.dtype)
                continue
            flat = torch.frombuffer(memory, dtype=field.dtype, count=shape.numel(), offset=field.start)
            yield name, flat.as_strided(shape, stride)

    micros = [MicroBatch(dict(tensors(fields)), weight, real) for fields, weight, real in parcel.micros]
    return StepBatch(micros, parcel.rows)


def _dense(tensor: Tensor) -> Tensor:
    """The tensor, or a copy where it does not fill its memory; a dense one keeps the order of its dims, which
    kernels may round by (channels last, say)."""
    like = torch.empty_like(tensor, device="meta")
    return tensor if like.stride() == tensor.stride() else torch.empty_like(tensor).copy_(tensor)


def _in_memory(tensor: Tensor) -> Tensor:
    """A dense tensor's elements as they lie in memory: shape (n,)."""
    return tensor.as_strided((tensor.numel(),), (1,))
