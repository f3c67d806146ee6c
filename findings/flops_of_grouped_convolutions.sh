#!/usr/bin/env bash
# torch's FLOP counter counts a depthwise convolution's backward many times over.
#
# Versions: torch 2.13.0 (CPU build), Python 3.11. Seen on 2026-11-30.
# Guess:    each gradient of a convolution takes as many operations as the convolution itself, so that its backward
#           counts twice its forward, whatever its groups: a training step is three forwards.
# Seen:     FlopCounterMode counts the gradient of a grouped convolution's weights as if it had one group. Of 64 groups
#           the backward counts 65 forwards instead of 2; the forward and the gradient of the input are right. What
#           is reckoned from it (MFU, a plan) is wrong by that for MobileNets, EfficientNets and ResNeXts.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0
cat > "$folder/count.py" <<'PYTHON'
import torch
from torch.utils.flop_counter import FlopCounterMode

found = {}
for groups in (1, 4, 64):
    layer = torch.nn.Conv2d(64, 64, 3, padding=1, groups=groups)
    image = torch.rand(1, 64, 8, 8, requires_grad=True)
    with FlopCounterMode(display=False) as forward:
        outputs = layer(image)
    with FlopCounterMode(display=False) as backward:
        outputs.sum().backward()
    found[groups] = backward.get_total_flops() / forward.get_total_flops()
    print(f"{groups} groups: forward {forward.get_total_flops():,}, backward {backward.get_total_flops():,}")
assert found == {1: 2, 4: 1 + 4, 64: 1 + 64}, "otherwise now"
PYTHON
"$folder/venv/bin/python" "$folder/count.py"
