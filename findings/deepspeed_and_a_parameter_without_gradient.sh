#!/usr/bin/env bash
# DeepSpeed gives a parameter without a gradient one of zeros, and AdamW shrinks it.
#
# Versions: deepspeed 0.19.8, torch 2.13.0 (CPU build), Python 3.11. Seen on 2026-11-30.
# Guess:    stage 0 is data parallelism with torch's own optimizer: a parameter that a step does not use has no gradient, and
#           AdamW passes it over.
# Seen:     before it averages, DeepSpeed fills in zeros, so that all workers average the same. AdamW then decays the parameter in
#           each step, and keeps a state of it. torch alone leaves it as it was.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
"$folder/venv/bin/pip" install --quiet deepspeed==0.19.8
cat > "$folder/deepspeed_and_a_parameter_without_gradient.py" <<'PYTHON'
import os
import tempfile

import torch
import torch.distributed as dist
from torch import nn

os.environ.update(DS_ACCELERATOR="cpu", LOCAL_RANK="0")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.idle = nn.Linear(2, 1), nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.used(x).sum()


def adamw(model):
    return torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)


plain = Net()
optimizer = adamw(plain)
plain(torch.ones(1, 2)).backward()
optimizer.step()

import deepspeed  # noqa: E402

with tempfile.TemporaryDirectory() as folder:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=0, world_size=1)
    model = Net()
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=adamw(model),
        config={
            "train_micro_batch_size_per_gpu": 1,
            "zero_allow_untested_optimizer": True,
            "zero_optimization": {"stage": 0},
        },
        dist_init_required=False,
    )
    engine.backward(engine(torch.ones(1, 2)))
    engine.step()
    print(f"the idle parameter after a step: {float(plain.idle):.3f} with torch, {float(model.idle):.3f} with DeepSpeed")
    assert float(plain.idle) == 1.0
    assert abs(float(model.idle) - 0.95) < 1e-6
    engine.destroy()
    dist.destroy_process_group()
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/deepspeed_and_a_parameter_without_gradient.py"
