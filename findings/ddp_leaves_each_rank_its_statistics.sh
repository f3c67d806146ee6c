#!/usr/bin/env bash
# After a step under DistributedDataParallel, each rank has its own running statistics: the same weights, measured by
# the ranks on the same rows, give other results, and rank 0's checkpoint is not what the others have measured.
#
# Versions: torch 2.13.0 (CPU build), Python 3.11. Seen on 2026-11-30.
# Guess:    with broadcast_buffers=True, the default, buffers are the same on all ranks, as parameters are: a model
#           that is put into eval mode behind a step measures the same on every rank.
# Seen:     buffers are broadcast before a forward pass in training mode, and each rank's batch then moves its own;
#           nothing brings them together before the model is measured, unless it is through the wrapper in train mode.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
cat > "$folder/ranks.py" <<'PYTHON'
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn


def work(rank, place):
    dist.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    wrapped = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rows = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    for _ in range(3):
        optimizer.zero_grad()
        wrapped(rows[rank::2] + rank).square().mean().backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        measured = torch.cat([model(rows).mean().view(1), model[0].weight.sum().view(1)])
    both = [torch.zeros(2) for _ in range(2)]
    dist.all_gather(both, measured)
    dist.barrier()
    if rank == 0:
        (first, one), (second, other) = ((float(a), float(b)) for a, b in both)
        print(f"sum of a weight: {one:.6f} and {other:.6f}; mean output on the same rows: {first:.6f} and {second:.6f}")
        assert one == other
        assert abs(first - second) > 1e-4, "the same now"


if __name__ == "__main__":
    mp.spawn(work, args=(sys.argv[1],), nprocs=2)
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/ranks.py" "$folder"
