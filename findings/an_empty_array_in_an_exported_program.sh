#!/usr/bin/env bash
# A program that looks at an empty NumPy array while it is exported can be run, and not be saved.
#
# Versions: torch 2.13.0, numpy 2.4.6, Python 3.11. Seen on 2026-11-30.
# Guess:    torch.as_tensor(np.empty(0, np.float32)).dtype in a module's forward is a dtype, found while tracing;
#           no tensor is left of it.
# Seen:     torch.export keeps the empty tensor as a lifted constant. The program runs, but torch.export.save raises
#           "numel: integer multiplication overflow". With an array of one number, or an empty tensor of torch's own,
#           it is saved.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat > "$folder/saves.py" <<'PYTHON'
import io
import warnings

import numpy as np
import torch

warnings.simplefilter("ignore")


class Cast(torch.nn.Module):
    def __init__(self, like):
        super().__init__()
        self.like = like

    def forward(self, x):
        return x.to(self.like().dtype)


EACH = {
    "an empty array": (lambda: torch.as_tensor(np.empty(0, np.float64)), False),
    "an array of one number": (lambda: torch.as_tensor(np.zeros(1, np.float64)), True),
    "an empty tensor": (lambda: torch.empty(0, dtype=torch.float64), True),
}
for name, (like, expected) in EACH.items():
    program = torch.export.export(Cast(like), (torch.zeros(3),))
    assert program.module()(torch.ones(3)).dtype == torch.float64
    try:
        torch.export.save(program, io.BytesIO())
        saved, said = True, ""
    except RuntimeError as error:
        saved, said = False, str(error)
    print(f"{name}: saved: {saved} {said}")
    assert saved == expected, "otherwise now"
PYTHON
"$folder/venv/bin/python" "$folder/saves.py"
