#!/usr/bin/env bash
# Making any torch optimizer imports torch._dynamo, which takes as long as torch itself, and makes a folder.
#
# Versions: torch 2.13.0 (CPU build), Python 3.11. Seen on 2026-11-30.
# Guess:    torch.compile's machinery is imported by who compiles; a program that makes an SGD of one tensor
#           imports torch and no more.
# Seen:     The constructor of every optimizer imports torch._dynamo and sympy with it, some 1,000 modules and
#           more than a second of work, and that makes a folder torchinductor_USER in the temporary folder.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
cat > "$folder/an_optimizer_imports_the_compiler.py" <<'PYTHON'
import os
import sys
import tempfile

with tempfile.TemporaryDirectory() as folder:
    os.environ["TMPDIR"] = folder
    tempfile.tempdir = None
    import torch

    weight = torch.nn.Parameter(torch.ones(1))
    before = len(sys.modules)
    assert "torch._dynamo" not in sys.modules
    assert os.listdir(folder) == []
    torch.optim.SGD([weight], lr=0.1)
    print("modules more:", len(sys.modules) - before)
    print("torch._dynamo, sympy:", "torch._dynamo" in sys.modules, "sympy" in sys.modules)
    made = [name.partition("_")[0] for name in os.listdir(folder)]
    print("made in TMPDIR:", made)
    assert "torch._dynamo" in sys.modules
    assert len(sys.modules) - before > 300
    assert made == ["torchinductor"]
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/an_optimizer_imports_the_compiler.py"
