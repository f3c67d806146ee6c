#!/usr/bin/env bash
# Arrow's CSV reader takes a table without rows when its header ends with a line end, and refuses it when not.
#
# Versions: pyarrow 25.0.1, Python 3.11. Seen on 2026-11-30.
# Guess:    the last line of a file may lack its end, as everywhere: a header alone is a table of no rows either way.
# Seen:     "x,y\n" is a table of two columns and no rows; "x,y" raises "Empty CSV file or block: cannot infer
#           number of columns" when the names are made up (autogenerate_column_names), though the file is not empty.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pyarrow==25.0.1
cat > "$folder/header.py" <<'PYTHON'
import io

from pyarrow import csv

options = csv.ReadOptions(autogenerate_column_names=True)


def read(text):
    try:
        return csv.read_csv(io.BytesIO(text), options).num_rows
    except Exception as error:
        return f"{type(error).__name__}: {error}"


found = {text: read(text) for text in (b"x,y\n1,2\n", b"x,y\n1,2", b"x,y\n", b"x,y")}
for text, rows in found.items():
    print(text, "->", rows)
assert found[b"x,y\n1,2"] == 2, "a last row may lack its line end"
assert found[b"x,y\n"] == 1
assert "cannot infer number of columns" in str(found[b"x,y"]), "it reads it now"
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/header.py"
