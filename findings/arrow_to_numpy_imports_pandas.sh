#!/usr/bin/env bash
# Turning an Arrow array into a numpy one imports pandas, where it is installed.
#
# Versions: pyarrow 25.0.1, pandas 3.1.1, numpy 2.4.6, Python 3.11. Seen on 2026-11-30.
# Guess:    an Array of doubles without nulls is handed to numpy without a copy; pandas has no part in it, and is
#           imported by to_pandas alone. So is a list that pa.array turns into an Array.
# Seen:     to_numpy(), np.asarray(), pa.array([...]) and pa.scalar(...) each import pandas, if it is there: a third
#           of a second and some tens of MB in every process that reads a table. So do functions of pyarrow.compute
#           that are given a plain value, and pyarrow.dataset, with which read_table reads even a single Parquet
#           file. Reading, casting and is_in do not, nor does handing an array over by DLPack.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pyarrow==25.0.1 pandas==3.1.1 numpy==2.4.6
cat > "$folder/imports.py" <<'PYTHON'
import subprocess
import sys

EACH = {
    "pc.cast(nulls, pa.float64())": False,
    "pa.nulls(3, pa.float64()).to_numpy(zero_copy_only=False)": True,
    "np.asarray(pa.nulls(3, pa.float64()))": True,
    "pa.array(['a'])": True,
    "pa.scalar(1.0)": True,
    "pc.add(pc.cast(nulls, pa.float64()), 1.0)": True,
    "import pyarrow.dataset": True,
    "import pyarrow.parquet": False,
    "np.from_dlpack(pc.cast(pc.is_null(nulls), pa.int8()))": False,
}
BEGIN = "import sys, numpy as np, pyarrow as pa, pyarrow.compute as pc; nulls = pa.nulls(3, pa.string()); "
for call, expected in EACH.items():
    text = BEGIN + f"before = 'pandas' in sys.modules; {call}; print(before, 'pandas' in sys.modules)"
    before, after = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True).stdout.split()
    print(f"{call}: pandas imported: {after}")
    assert before == "False"
    assert after == str(expected), "otherwise now"
PYTHON
"$folder/venv/bin/python" "$folder/imports.py"
