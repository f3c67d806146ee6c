"""The ring's sums, bytes and residuals, for any number of ranks, size and type."""

from __future__ import annotations

import threading

import pytest
import torch
import torch.distributed as dist
from harness import in_workers
from torch import Tensor

from dlsys.train.collectives import RingAllReduce
from dlsys.train.world import World

SIZES = (0, 1, 2, 3, 6, 1001, 20011, 64)
RANKS = (2, 3, 4, 7)
TOLERANCE = {torch.float32: 1e-6, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def own(rank: int, numel: int, dtype: torch.dtype = torch.float32) -> Tensor:
    values = torch.randn(numel, generator=torch.Generator().manual_seed(1000 * rank + numel))
    return (values * 10).to(dtype)


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def sums(world: World, dtype: torch.dtype, chunk_bytes: int) -> list[tuple[bytes, float, int]]:
    """For each size, without a pause: the result, its largest error by the scale, the bytes sent."""
    ring = RingAllReduce(chunk_bytes=chunk_bytes)
    found = []
    for numel in SIZES:
        tensor, before = own(world.rank, numel, dtype), ring.sent_bytes
        ring.all_reduce(tensor)
        parts = torch.stack([own(rank, numel, dtype).double() for rank in range(world.size)])
        scale = parts.abs().sum(0).max() if numel else torch.ones(())
        error = (tensor.double() - parts.sum(0)).abs().amax() / scale if numel else 0.0
        found.append((bits(tensor), float(error), ring.sent_bytes - before))
    return found


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("chunk_bytes", [256, 1 << 20])
def test_every_rank_gets_the_sum(ranks: int, chunk_bytes: int) -> None:
    every = in_workers(ranks, sums, torch.float32, chunk_bytes)
    for index, numel in enumerate(SIZES):
        assert len({found[index][0] for found in every}) == 1, "ranks differ"
        for _, error, sent in (found[index] for found in every):
            assert error <= TOLERANCE[torch.float32]
            # Parts differ by an element at most, and 2(n − 1) of them are sent.
            assert abs(sent - 2 * (ranks - 1) / ranks * 4 * numel) <= 2 * (ranks - 1) * 4
        assert sum(found[index][2] for found in every) == 2 * (ranks - 1) * 4 * numel


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int8],
    ids=str,
)
def test_types(dtype: torch.dtype) -> None:
    for found in in_workers(3, sums, dtype, 256):
        for (_, error, sent), numel in zip(found, SIZES, strict=True):
            assert error <= TOLERANCE.get(dtype, 1e-12)
            assert abs(sent - 4 / 3 * dtype.itemsize * numel) <= 4 * dtype.itemsize


def shapes(world: World) -> tuple[bool, str]:
    ring = RingAllReduce()
    cube = torch.full((3, 5, 7), float(world.rank))
    ring.all_reduce(cube)
    with pytest.raises(RuntimeError, match="view") as refused:
        ring.all_reduce(torch.ones(4, 4).t()[1:])
    return bool((cube == 3.0).all()), str(refused.value)


def test_shape_is_kept_and_strides_are_refused() -> None:
    assert all(right for right, _ in in_workers(3, shapes))


def alone(world: World) -> Tensor:
    tensor = torch.tensor([1.001, 2.0])
    RingAllReduce().all_reduce(tensor, wire=torch.bfloat16)
    return tensor


def test_one_rank_has_its_sum_already() -> None:
    assert torch.equal(in_workers(1, alone)[0], torch.tensor([1.001, 2.0]))


def beside_others(world: World) -> bool:
    """Rings in a thread, and the same tags and peers in the default group meanwhile."""
    ring = RingAllReduce(chunk_bytes=4096)
    tensors = [torch.full((5000,), float(number + world.rank)) for number in range(20)]
    thread = threading.Thread(target=lambda: [ring.all_reduce(tensor) for tensor in tensors])
    thread.start()
    right = True
    for number in range(50):
        other = torch.full((100,), float(number))
        dist.all_reduce(other)
        work = dist.isend(torch.full((9,), -1.0), dst=1 - world.rank, tag=number % 4)
        got = torch.zeros(9)
        dist.recv(got, src=1 - world.rank, tag=number % 4)
        work.wait()
        right &= bool((other == 2 * number).all()) and bool((got == -1).all())
    thread.join()
    return right and all(bool((t == 2 * number + 1).all()) for number, t in enumerate(tensors))


def test_messages_never_mix_with_another_groups() -> None:
    assert in_workers(2, beside_others) == [True, True]


def narrow(world: World, wire: torch.dtype, numel: int) -> tuple[bytes, float, int]:
    """The result, how far sum and residuals together are from the truth, and the bytes sent."""
    ring = RingAllReduce(chunk_bytes=512)
    before = own(world.rank + 10, numel) * 1e-3  # a residual from an earlier step
    tensor, residual = own(world.rank, numel), before.clone()
    parts = [own(rank, numel).double() + own(rank + 10, numel).double() * 1e-3 for rank in range(world.size)]
    ring.all_reduce(tensor, wire=wire, residual=residual)
    owed = residual.double()
    dist.all_reduce(owed)
    error = (tensor.double() + owed - torch.stack(parts).sum(0)).abs().max()
    return bits(tensor), float(error), ring.sent_bytes


@pytest.mark.parametrize("wire", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_a_narrow_wire_keeps_what_it_rounds_off(wire: torch.dtype, ranks: int) -> None:
    every = in_workers(ranks, narrow, wire, 3001)
    assert len({result for result, _, _ in every}) == 1, "ranks differ"
    for _, error, sent in every:
        assert error < 1e-4, "result + residuals is the sum, as exactly as fp32 adds"
        assert abs(sent - 2 * (ranks - 1) / ranks * 2 * 3001) <= 2 * (ranks - 1) * 2


def long_run(world: World, feedback: bool, steps: int) -> float:
    """The largest error of the mean result over many steps of the same tensors."""
    ring = RingAllReduce()
    residual = torch.zeros(501) if feedback else None
    total = torch.zeros(501, dtype=torch.float64)
    for _ in range(steps):
        tensor = own(world.rank, 501)
        ring.all_reduce(tensor, wire=torch.bfloat16, residual=residual)
        total += tensor
    exact = torch.stack([own(rank, 501) for rank in range(world.size)]).double().sum(0)
    return float((total / steps - exact).abs().max())


def test_feedback_makes_the_mean_exact_in_the_long_run() -> None:
    """Without it the error stays; with it, it falls as 1 / steps (Karimireddy et al. 2019)."""
    biased, few, many = (
        in_workers(3, long_run, feedback, steps)[0]
        for feedback, steps in ((False, 50), (True, 10), (True, 500))
    )
    assert biased > 0.02
    assert many < few / 10
    assert many < biased / 50
