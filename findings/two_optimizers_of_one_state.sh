#!/usr/bin/env bash
# Two optimizers that took up the same state share their moments from then on.
#
# Versions: torch 2.13.0, Python 3.11. Seen on 2026-11-30.
# Guess:    Optimizer.load_state_dict copies, as Module.load_state_dict does: whoever gives one optimizer's state to
#           another, to let two runs go on from one point in one process, has two that are apart.
# Seen:     tensors whose type and device fit already are taken as they are. A step of either optimizer changes the
#           moments of both, and the second one's parameters go elsewhere than alone. The module's weights are copied.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0
cat > "$folder/shares.py" <<'PYTHON'
import copy

import torch


def made():
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    return model, torch.optim.Adam(model.parameters())


def step(model, optimizer, value):
    optimizer.zero_grad()
    model(torch.full((1, 2), value)).sum().backward()
    optimizer.step()


def gone_on(copied):
    first, second = made(), made()
    step(*first, 1.0)
    weights, moments = first[0].state_dict(), first[1].state_dict()
    second[0].load_state_dict(weights)
    second[1].load_state_dict(copy.deepcopy(moments) if copied else moments)
    shared = first[1].state[first[0].weight]["exp_avg"] is second[1].state[second[0].weight]["exp_avg"]
    assert first[0].weight.data_ptr() != second[0].weight.data_ptr()
    step(*first, 100.0)
    step(*second, 1.0)
    return shared, second[0].weight.tolist()


(shared, together), (apart, alone) = gone_on(False), gone_on(True)
print(f"one tensor: {shared}; the second one's weights {together}, and alone {alone}")
assert shared, "otherwise now"
assert not apart
assert together != alone
PYTHON
"$folder/venv/bin/python" "$folder/shares.py"
