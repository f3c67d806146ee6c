#!/usr/bin/env bash
# DDP with static_graph=True cannot accumulate: no_sync ends in an internal assertion.
#
# Versions: torch 2.13.0 (CPU build), Python 3.11. Seen on 2026-11-30.
# Guess:    static_graph promises that each step uses the same parameters, and no_sync leaves gradients of all passes but the last
#           unaveraged. Both are DDP's own, and go together.
# Seen:     the first synchronised backward pass after one in no_sync raises an INTERNAL ASSERT of reducer.cpp, also where every
#           parameter is used in every pass. Each of the two works without the other.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
cat > "$folder/ddp_static_graph_and_no_sync.py" <<'PYTHON'
import tempfile

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def steps(static, accumulate):
    model = DistributedDataParallel(nn.Linear(2, 1), static_graph=static)
    for _ in range(3):
        if accumulate:
            with model.no_sync():
                model(torch.ones(1, 2)).sum().backward()
        model(torch.ones(1, 2)).sum().backward()


with tempfile.TemporaryDirectory() as folder:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=0, world_size=1)
    steps(static=True, accumulate=False)
    steps(static=False, accumulate=True)
    print("static_graph alone and no_sync alone: fine")
    try:
        steps(static=True, accumulate=True)
        said = "nothing"
    except RuntimeError as error:
        said = str(error).splitlines()[0]
    print("both:", said[:100])
    assert "INTERNAL ASSERT" in said, said
    dist.destroy_process_group()
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/ddp_static_graph_and_no_sync.py"
