#!/usr/bin/env bash
# A parameter that one step of DDP does not use leaves the others of its bucket unaveraged, without a word.
#
# Versions: torch 2.13.0 (CPU build), Python 3.11. Seen on 2026-11-30.
# Guess:    DDP averages the gradients that there are. Where a parameter got none and find_unused_parameters is off, it says so
#           when backward is done.
# Seen:     the whole bucket of the idle parameter keeps this worker's own gradients; the error comes with the next forward pass.
#           A run of one step, or the last step of a run, ends with weights that differ from worker to worker.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
cat > "$folder/ddp_with_an_idle_parameter.py" <<'PYTHON'
import os
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def work(rank, folder, idle):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet-{idle}", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = nn.ModuleDict({"used": nn.Linear(2, 1, bias=False)})
    if idle:
        model["idle"] = nn.Linear(2, 1, bias=False)
    model.forward = lambda x: model["used"](x)
    wrapped = DistributedDataParallel(model)
    wrapped(torch.full((1, 2), 1.0 + rank)).sum().backward()
    torch.save(model["used"].weight.grad, f"{folder}/{idle}-{rank}")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for idle in (0, 1):
            mp.spawn(work, (folder, idle), nprocs=2)
            found[idle] = [torch.load(os.path.join(folder, f"{idle}-{rank}")).tolist()[0] for rank in (0, 1)]
        print("gradients of the two workers, all used:", found[0])
        print("gradients of the two workers, one idle:", found[1])
        assert found[0] == [[1.5, 1.5], [1.5, 1.5]], found
        assert found[1] == [[1.0, 1.0], [2.0, 2.0]], found
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/ddp_with_an_idle_parameter.py"
