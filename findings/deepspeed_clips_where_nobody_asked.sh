#!/usr/bin/env bash
# DeepSpeed clips gradients by their norm where its configuration does not say so.
#
# Versions: deepspeed 0.19.8, torch 2.13.0 (CPU build), Python 3.11. Seen on 2026-11-30.
# Guess:    clipping is off unless gradient_clipping is given.
# Seen:     without the key, gradients whose norm is above 1 are scaled down to it. With gradient_clipping: 0.0 a step is torch's.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
"$folder/venv/bin/pip" install --quiet deepspeed==0.19.8
cat > "$folder/deepspeed_clips_where_nobody_asked.py" <<'PYTHON'
import os
import tempfile

import torch
import torch.distributed as dist
from torch import nn

os.environ.update(DS_ACCELERATOR="cpu", LOCAL_RANK="0")
import deepspeed  # noqa: E402


def moved(**more):
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {"stage": 0},
        **more,
    }
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config, dist_init_required=False)
    engine.backward(engine(torch.full((1, 1), 5.0)).sum())
    engine.step()
    engine.destroy()
    return round(-float(model.weight), 4)


with tempfile.TemporaryDirectory() as folder:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=0, world_size=1)
    silent, off = moved(), moved(gradient_clipping=0.0)
    print(f"a gradient of 5 moves the weight by {silent} without the key, and by {off} with gradient_clipping: 0.0")
    assert off == 5.0, off
    assert silent == 1.0, silent
    dist.destroy_process_group()
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/deepspeed_clips_where_nobody_asked.py"
