#!/usr/bin/env bash
# Asking torch.distributed.checkpoint for the state of a new Adam makes it one that has made a step.
#
# Versions: torch 2.13.0 (CPU build), Python 3.11. Seen on 2026-11-29.
# Guess:    get_optimizer_state_dict reads: before the first step an Adam has no moments, and its saved state says so,
#           as optimizer.state_dict() does.
# Seen:     the call makes a step with zero gradients to have something to save. The saved state, and the optimizer
#           itself from then on, say `step: 1`: its bias correction is that of the second step, and the weights after
#           the first real step differ from those of a run that was not saved.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
cat > "$folder/adam.py" <<'PYTHON'
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict


def first_step(saved):
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    told = None
    if saved:  # a number: the tensors are the optimizer's own, and go on with it
        told = float(get_optimizer_state_dict(model, optimizer)["state"]["weight"]["step"])
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    return model.weight.detach().clone(), told


plain, _ = first_step(saved=False)
after, step = first_step(saved=True)
moved = float((plain - after).abs().max())
print(f"saved before any step: step = {step:g}; weights after the first real step differ by {moved:.4f}")
assert step == 1.0, step
assert moved > 0.01, moved
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/adam.py"
