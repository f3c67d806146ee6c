#!/usr/bin/env bash
# Module.to(torch.float64) makes real numbers of complex parameters.
#
# Versions: torch 2.13.0 (CPU build), Python 3.11. Seen on 2026-11-30.
# Guess:    it converts floating-point parameters and leaves the others as they are, as it leaves whole numbers.
# Seen:     complex parameters and buffers become float64 too: their imaginary parts are gone, with a UserWarning as the only word.
#           `double()` leaves them alone.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
cat > "$folder/module_to_double_and_complex_parameters.py" <<'PYTHON'
import torch
from torch import nn


class Turn(nn.Module):
    def __init__(self):
        super().__init__()
        self.phase = nn.Parameter(torch.tensor([1 + 2j]))
        self.register_buffer("count", torch.tensor([3]))


moved, doubled = Turn().to(torch.float64), Turn().double()
print("to(torch.float64):", moved.phase.dtype, moved.phase.tolist(), moved.count.dtype)
print("double():", doubled.phase.dtype, doubled.phase.tolist(), doubled.count.dtype)
assert moved.phase.dtype == torch.float64
assert moved.phase.tolist() == [1.0]
assert moved.count.dtype == doubled.count.dtype == torch.int64
assert doubled.phase.dtype == torch.complex64
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/module_to_double_and_complex_parameters.py"
