#!/usr/bin/env bash
# safetensors holds complex numbers of 2 x 32 bits, and none of 2 x 64.
#
# Versions: safetensors 0.8.0, torch 2.13.0 (CPU build), Python 3.11. Seen on 2026-11-30.
# Guess:    a format that takes complex64 and float64 takes complex128: a model trained in double precision is saved as one
#           trained in single precision is.
# Seen:     complex64 is written and read back exactly; complex128 is refused when it is saved, which for a training run is after
#           its first epoch.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy safetensors==0.8.0
cat > "$folder/safetensors_and_complex_numbers.py" <<'PYTHON'
import os
import tempfile

import torch
from safetensors.torch import load_file, save_file

with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "w.safetensors")
    single = torch.tensor([1 + 2j], dtype=torch.complex64)
    save_file({"w": single}, path)
    assert torch.equal(load_file(path)["w"], single)
    save_file({"w": torch.ones(1, dtype=torch.float64)}, path)
    print("complex64 and float64: written and read")
    try:
        save_file({"w": single.to(torch.complex128)}, path)
        said = "written"
    except Exception as error:
        said = f"{type(error).__name__}: {str(error)[:80]}"
    print("complex128:", said)
    assert said != "written", said
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/safetensors_and_complex_numbers.py"
