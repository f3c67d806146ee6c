"""Bus bandwidth of the ring all-reduce against gloo's own, on 2 and 4 ranks of this machine.

    python benchmarks/ring.py [--quick] [--repetitions 7]

Bus bandwidth is 2·(n−1)/n times the tensor's bytes by the time of the slowest rank: what each rank
sends a second, whatever n (as NVIDIA's nccl-tests count it).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from side_by_side import Row, compare, report, seconds
from torch import Tensor

from dlsys.train.collectives import RingAllReduce

MEGABYTES = (4, 40, 160)
RANKS = (2, 4)
# Small tensors are reduced several times a turn, so that a turn outlasts what the scheduler does.
_BYTES_A_TURN = 160e6


def bandwidth(reduce: Callable[[Tensor], object], tensor: Tensor, size: int) -> float:
    """GB/s."""
    times = max(1, int(_BYTES_A_TURN / tensor.nbytes))
    dist.barrier()
    took = torch.tensor(seconds(lambda: [reduce(tensor) for _ in range(times)]), dtype=torch.float64)
    dist.all_reduce(took, op=dist.ReduceOp.MAX)
    return 2 * (size - 1) / size * tensor.nbytes * times / float(took) / 1e9


def work(rank: int, size: int, meet: str, runs: int, pipe: Connection) -> None:
    """All comparisons as one rank; every rank makes the same calls, rank 0 tells what came out."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=size)
    ring = RingAllReduce()
    rows = []
    for megabytes in MEGABYTES:
        # Zeros stay finite, however often they are added.
        tensor = torch.zeros(megabytes * 250_000)
        rows.append(
            compare(
                f"all-reduce of {megabytes} MB, {size} ranks",
                "gloo",
                lambda: bandwidth(ring.all_reduce, tensor, size),  # noqa: B023 - called at once
                lambda: bandwidth(dist.all_reduce, tensor, size),  # noqa: B023
                goal=">= 1",
                unit="GB/s",
                runs=runs,
            )
        )
    if rank == 0:
        pipe.send(rows)
    dist.barrier()
    dist.destroy_process_group()


def measure(size: int, runs: int) -> list[Row]:
    ours, theirs = mp.get_context("spawn").Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(work, (size, f"{folder}/meet", runs, theirs), nprocs=size)
    rows: list[Row] = ours.recv()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one turn")
    parser.add_argument("--repetitions", type=int, default=7)
    arguments = parser.parse_args()
    runs = 1 if arguments.quick else arguments.repetitions
    report("ring", [row for size in RANKS for row in measure(size, runs)])


if __name__ == "__main__":
    main()
