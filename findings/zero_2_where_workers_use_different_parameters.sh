#!/usr/bin/env bash
# ZeRO stage 2 adds gradients of different parameters where workers use different ones.
#
# Versions: deepspeed 0.19.8, torch 2.13.0 (CPU build), Python 3.11. Seen on 2026-11-30.
# Guess:    each worker's gradient of a parameter is averaged with the other workers' gradients of that parameter; one that has none
#           counts as 0, as under stages 0 and 1.
# Seen:     stage 2 averages in the order in which gradients come. Where one worker's rows lead through one layer and another's
#           through a second of the same size, the first layer of the one is averaged with the second of the other. Nothing is said.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
"$folder/venv/bin/pip" install --quiet deepspeed==0.19.8
cat > "$folder/zero_2_where_workers_use_different_parameters.py" <<'PYTHON'
import os
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

STEP = 0.1


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(1, 1, bias=False) for _ in range(2))
        self.shared = nn.Parameter(torch.ones(1))

    def forward(self, x, which):
        return (self.layers[which](x) * self.shared).sum()


def work(rank, folder, stage):
    os.environ.update(DS_ACCELERATOR="cpu", LOCAL_RANK=str(rank))
    import deepspeed

    dist.init_process_group("gloo", init_method=f"file://{folder}/meet-{stage}", rank=rank, world_size=2)
    model = Two()
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=STEP),
        config={
            "train_micro_batch_size_per_gpu": 1,
            "zero_allow_untested_optimizer": True,
            "gradient_clipping": 0.0,
            "zero_optimization": {"stage": stage},
        },
        dist_init_required=False,
    )
    engine.backward(engine(torch.full((1, 1), 1.0 + rank), rank))  # each worker its own layer
    engine.step()
    moved = [round(float(1 - layer.weight) / STEP, 3) for layer in model.layers]
    torch.save(moved, f"{folder}/{stage}-{rank}")
    dist.barrier()
    engine.destroy()
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for stage in (0, 2):
            mp.spawn(work, (folder, stage), nprocs=2)
            found[stage] = torch.load(f"{folder}/{stage}-0")
            print(f"stage {stage}: mean gradients of the two layers:", found[stage])
        assert found[0] == [0.5, 1.0], found
        assert found[2] != found[0], found
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/zero_2_where_workers_use_different_parameters.py"
