"""Arrow's arrays and numpy's say the same, and pandas has no part in it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.json
import pyarrow.parquet
import pytest

from dlsys.data.features.arrays import arrow_of, numpy_of, texts_of

ARRAYS = [
    pa.array([1.5, None, -2.0]),
    pa.array([1.5, None, -2.0, None, 3.0]).slice(1, 3),
    pa.array([True, False, True]),
    pa.array(range(20), pa.int32()).slice(9),
    pa.array([], pa.float64()),
    pa.chunked_array([pa.array([1.0]), pa.array([None, 2.0]), pa.array([], pa.float64())]),
    pa.chunked_array([pa.array([i % 3 == 0 for i in range(17)]).slice(3), pa.array([True])]),
]


@pytest.mark.parametrize("array", ARRAYS, ids=str)
def test_numpy_gets_what_arrow_holds(array: pa.Array | pa.ChunkedArray) -> None:
    expected = np.array(array.to_pylist(), dtype=array.type.to_pandas_dtype())
    assert numpy_of(array).dtype == expected.dtype
    np.testing.assert_array_equal(numpy_of(array), expected)


def test_null_is_what_is_said() -> None:
    assert numpy_of(pa.array([3, None], pa.int32()), -1).tolist() == [3, -1]


@pytest.mark.parametrize("kind", ["?", "i4", "i8", "f4", "f8"])
def test_arrow_gets_what_numpy_holds(kind: str) -> None:
    values = np.arange(40).reshape(20, 2).astype(kind)[:, 1]
    assert arrow_of(values).equals(pa.array(values))


@pytest.mark.parametrize("texts", [[], ["a", "", "größer"]])
def test_arrow_gets_text(texts: list[str]) -> None:
    assert texts_of(texts).equals(pa.array(texts, pa.string()))


READ = """
import sys
from pathlib import Path
import numpy as np
from dlsys.data import load
from dlsys.data.features import files
from dlsys.spec.data import ArrowFile, CSVFile, JSONLines, ParquetFile
for kind in (CSVFile, ParquetFile, ArrowFile, JSONLines):
    source = kind.model_fields["source"].annotation.__args__[0]
    for large in (files.LARGE, 0):  # kept on disk or not
        files.LARGE = large
        options = kind(source=source, path=f"rows.{source}", target="y", missing="drop")
        rows = load(options, Path(sys.argv[1])).train
        rows.batch(np.arange(len(rows)))
        assert "pandas" not in sys.modules, (source, large)
"""


def test_reading_a_table_imports_no_pandas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rows = [
        {"age": i if i % 7 else None, "price": i / 7, "city": "abc"[i % 3], "y": i % 2} for i in range(60)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    cells = [["" if cell is None else str(cell) for cell in row.values()] for row in rows]
    (tmp_path / "rows.csv").write_text("\n".join(map(",".join, [rows[0], *cells])))
    table = pa.json.read_json(tmp_path / "rows.jsonl")
    pa.parquet.write_table(table, tmp_path / "rows.parquet")
    pa.feather.write_feather(table, tmp_path / "rows.arrow", compression="uncompressed")
    done = subprocess.run([sys.executable, "-c", READ, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
