#!/usr/bin/env bash
# On a CPU, an LSTM keeps more than twice the memory for backward that its arithmetic needs; a GRU does not.
#
# Versions: torch 2.13.0 (CPU build), Python 3.11. Seen on 2026-11-29.
# Guess:    what autograd saves for a layer is decided by its mathematics, so that a dry run on the meta device tells
#           what a real run will hold.
# Seen:     for nn.GRU the CPU saves about what the meta device says (1.2 times). nn.LSTM is one oneDNN operator on a
#           CPU, which saves a workspace of its own: three times the bytes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0
cat > "$folder/held.py" <<'PYTHON'
import torch
from torch import nn


def held(cell, device):
    with torch.device(device):
        layer, x = cell(32, 24, batch_first=True), torch.randn(64, 8, 32)
    own = {tensor.untyped_storage()._cdata for tensor in (*layer.parameters(), x)}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(x)
    return sum(size for size, _ in kept.values())


ratios = {cell.__name__: held(cell, "cpu") / held(cell, "meta") for cell in (nn.LSTM, nn.GRU)}
print({name: round(ratio, 2) for name, ratio in ratios.items()}, "times what the meta device says")
assert ratios["LSTM"] > 2, ratios
assert 0.8 < ratios["GRU"] < 1.25, ratios
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/held.py"
