#!/usr/bin/env bash
# torch's FLOP counter sees no attention and no LSTM on a CPU.
#
# Versions: torch 2.13.0 (CPU build), Python 3.11. Seen on 2026-11-29.
# Guess:    torch.utils.flop_counter.FlopCounterMode counts what a model computes, so it gives the same figure on
#           every device; figures of a small run on a CPU can stand for MFU or for a planner.
# Seen:     F.scaled_dot_product_attention counts 0 on a CPU and 4·n²·d on the meta device: the CPU's fused kernel
#           (_scaled_dot_product_flash_attention_for_cpu) has no formula. nn.LSTM counts 0 on a CPU too, because
#           oneDNN's layer is one opaque operator; nn.GRU, beside it, counts in full.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0
cat > "$folder/count.py" <<'PYTHON'
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode


def count(work):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        work()
    return counter.get_total_flops()


def attention(device):
    q = torch.randn(2, 4, 64, 16, device=device)
    return count(lambda: F.scaled_dot_product_attention(q, q, q))


def recurrent(cell, device):
    with torch.device(device):
        layer, x = cell(8, 16, batch_first=True), torch.randn(4, 10, 8)
    return count(lambda: layer(x))


found = {
    device: (attention(device), recurrent(nn.LSTM, device), recurrent(nn.GRU, device)) for device in ("meta", "cpu")
}
for device, (attended, lstm, gru) in found.items():
    print(f"{device:5} attention {attended:9,}   LSTM {lstm:8,}   GRU {gru:8,}")
assert found["meta"] == (4 * 64 * 64 * 16 * 8, 2 * 40 * 64 * 24, 2 * 40 * 48 * 24), found
assert found["cpu"] == (0, 0, found["meta"][2]), found
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/count.py"
