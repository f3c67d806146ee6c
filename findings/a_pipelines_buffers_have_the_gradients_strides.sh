#!/usr/bin/env bash
# A pipeline stage whose input's gradient is a view cannot train over gloo: the buffer that receives it is a view too.
#
# Versions: torch 2.13.0 (CPU build), Python 3.11. Seen on 2026-11-30.
# Guess:    Buffers for what comes from other stages are made by shape and type, in one piece; how the sender's
#           gradient lies in memory is its own affair.
# Seen:     The stage before makes its buffer with the strides of the gradient, and gloo receives in nothing
#           that is not contiguous: 'input tensor has to be contiguous', in the first step. A block that takes
#           the real part of a complex product is enough.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
cat > "$folder/a_pipelines_buffers_have_the_gradients_strides.py" <<'PYTHON'
import os
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.pipelining import PipelineStage, ScheduleGPipe


class Turned(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("turn", torch.polar(torch.ones(4), torch.arange(4.0)))

    def forward(self, x):
        return (x * self.turn).real.contiguous()


def work(rank, folder, kind):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet-{kind}", rank=rank, world_size=2)
    torch.manual_seed(0)
    second = nn.Sequential(Turned() if kind == "turned" else nn.Tanh(), nn.Linear(4, 4))
    module = nn.Linear(4, 4) if rank == 0 else second
    stage = PipelineStage(module, rank, 2, torch.device("cpu"))
    schedule = ScheduleGPipe(stage, n_microbatches=2, loss_fn=lambda out, target: (out - target).square().mean())
    rows = torch.ones(4, 4)
    said = "trained"
    try:
        schedule.step(rows) if rank == 0 else schedule.step(target=rows)
    except RuntimeError as error:
        said = str(error).splitlines()[0]
    with open(f"{folder}/{kind}-{rank}", "w") as file:
        file.write(said)
    os._exit(0)  # the other stage waits for what never comes


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for kind in ("plain", "turned"):
            processes = [mp.get_context("spawn").Process(target=work, args=(rank, folder, kind)) for rank in (0, 1)]
            for process in processes:
                process.start()
            processes[0].join(120)
            for process in processes:
                process.kill()
                process.join()
            with open(f"{folder}/{kind}-0") as file:
                found[kind] = file.read()
        print(found)
        assert found["plain"] == "trained", found
        assert "contiguous" in found["turned"], found
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/a_pipelines_buffers_have_the_gradients_strides.py"
