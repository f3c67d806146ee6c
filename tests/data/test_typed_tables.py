"""Tables with types of their own: Parquet, Arrow and JSON lines give what the same CSV file gives."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
import torch

from dlsys.data import Splits, load
from dlsys.data.features.encoding import features_of
from dlsys.data.own.tables import as_cells
from dlsys.errors import DataError
from dlsys.spec.data import ArrowFile, CSVFile, JSONLines, ParquetFile

COUNT = 60
CITIES = ["Rome", "Oslo", None]
COLUMNS: dict[str, list[Any]] = {
    "age": [None if i % 7 == 0 else i for i in range(COUNT)],
    "price": [i / 7 for i in range(COUNT)],
    "city": [CITIES[i % 3] for i in range(COUNT)],
    "y": [("no", "yes")[i % 2] for i in range(COUNT)],
}


def write_csv(table: pa.Table, path: Path) -> None:
    lines = [",".join(table.column_names)]
    for row in table.to_pylist():
        lines.append(",".join("" if value is None else str(value) for value in row.values()))
    path.write_text("\n".join(lines))


def write_jsonl(table: pa.Table, path: Path) -> None:
    path.write_text("\n".join(json.dumps(row) for row in table.to_pylist()))


def write_stream(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)


def write_folder(table: pa.Table, path: Path) -> None:
    path.mkdir()
    pa.parquet.write_table(table.slice(0, 25), path / "part-0.parquet")
    pa.parquet.write_table(table.slice(25), path / "part-1.parquet")


WRITERS: dict[str, tuple[Callable[[pa.Table, Path], None], Any]] = {
    "csv": (write_csv, CSVFile),
    "parquet": (pa.parquet.write_table, ParquetFile),
    "a folder of parquet": (write_folder, ParquetFile),
    "arrow": (pa.feather.write_feather, ArrowFile),
    "arrow's stream": (write_stream, ArrowFile),
    "jsonl": (write_jsonl, JSONLines),
}
NAMES = {CSVFile: "csv", ParquetFile: "parquet", ArrowFile: "arrow", JSONLines: "jsonl"}


def read(kind: str, table: pa.Table, folder: Path, **options: Any) -> Splits:
    write, section = WRITERS[kind]
    path = folder / "rows"
    if not path.exists():
        write(table, path)
    given = {"target": "y", "missing": "mean", **options}
    return load(section(source=NAMES[section], path="rows", **given), folder)


@pytest.mark.parametrize("kind", [kind for kind in WRITERS if kind != "csv"])
def test_the_same_rows_as_from_csv(kind: str, tmp_path: Path) -> None:
    (tmp_path / "csv").mkdir()
    (tmp_path / "other").mkdir()
    table = pa.table(COLUMNS)
    expected, found = read("csv", table, tmp_path / "csv"), read(kind, table, tmp_path / "other")
    assert found.learnt["columns"] == expected.learnt["columns"]
    assert found.learnt["target"] == {"name": "y", "classes": ["no", "yes"], "counts": [24, 24]}
    for part, wanted in ((found.train, expected.train), (found.valid, expected.valid)):
        rows = np.arange(len(wanted))
        for name, tensor in wanted.batch(rows).items():
            assert torch.equal(part.batch(rows)[name], tensor)


def test_types_say_what_columns_are(tmp_path: Path) -> None:
    day = datetime.date(2026, 1, 1)
    table = pa.table(
        {
            "zip": [f"0{i}" for i in range(COUNT)],  # text that is meant
            "flag": [i % 3 == 0 for i in range(COUNT)],
            "day": [day + datetime.timedelta(days=i) for i in range(COUNT)],
            "at": pa.array([i * 3600 for i in range(COUNT)], pa.timestamp("s")),
            "code": pa.array([("a", "b")[i % 2] for i in range(COUNT)]).dictionary_encode(),
            "y": [i % 2 for i in range(COUNT)],
        }
    )
    kinds = {c["name"]: c["kind"] for c in read("parquet", table, tmp_path).learnt["columns"]}
    assert kinds == {"zip": "category", "flag": "category", "day": "date", "at": "date", "code": "category"}
    said = read("parquet", table, tmp_path, columns={"zip": "number", "flag": "number", "day": "skip"})
    assert {c["name"]: c["kind"] for c in said.learnt["columns"]} == {
        "zip": "number",
        "flag": "number",
        "at": "date",
        "code": "category",
    }


def test_dates_in_text(tmp_path: Path) -> None:
    days = [f"2026-{1 + i // 28:02}-{1 + i % 28:02}" for i in range(COUNT)]
    table = pa.table({"day": days, "y": [i % 2 for i in range(COUNT)]})
    with pytest.raises(DataError, match=r"rows:2: column 'day' looks like dates.*say columns: {day: date}"):
        read("csv", table, tmp_path)
    (column,) = read("csv", table, tmp_path, columns={"day": "date"}).learnt["columns"]
    assert column["kind"] == "date"
    first = (datetime.date(2026, 1, 1) - datetime.date(1970, 1, 1)).days
    assert first < column["mean"] < first + 70
    odd = pa.table({"day": [*days[:-1], "soon"], "y": [i % 2 for i in range(COUNT)]})
    (tmp_path / "rows").unlink()
    with pytest.raises(DataError, match="rows:61: column 'day': 'soon' is not a date such as 2026-01-31"):
        read("csv", odd, tmp_path, columns={"day": "date"})


@pytest.mark.parametrize(
    ("source", "content", "said"),
    [
        ("csv", b"PAR1....", "rows: is a Parquet file: say source: parquet"),
        ("csv", b"ARROW1\0\0", "rows: is an Arrow file: say source: arrow"),
        ("csv", b"\x1f\x8b\x08....", "rows: is compressed by gzip: unpack it"),
        ("csv", b"PK\x03\x04....", "rows: is a zip archive"),
        ("parquet", b"x,y\n1,2\n", "rows: cannot be read as Parquet: "),
        ("arrow", b"x,y\n1,2\n", "rows: cannot be read as Arrow: "),
        ("jsonl", b'{"x": 1, "y": 1}\n{"x": \n', "rows:2: not JSON: "),
        ("jsonl", b'{"x": 1, "y": 1}\n[1]\n', "rows:2: is no object such as"),
        ("jsonl", b'{"x": 1, "y": 1}\n{"x": "a", "y": 1}\n', "rows:2: 'x' is a str, and a number in line 1"),
    ],
)
def test_what_is_another_format_is_told(source: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(content)
    section = next(section for section, name in NAMES.items() if name == source)
    with pytest.raises(DataError) as found:
        load(section(source=source, path="rows", target="y"), tmp_path)
    assert str(found.value).startswith(said)


def test_columns_without_features_are_told(tmp_path: Path) -> None:
    table = pa.table({"x": [[1, 2]] * COUNT, "y": [i % 2 for i in range(COUNT)]})
    with pytest.raises(DataError, match=r"column 'x' is of list<.*say columns: {x: skip}"):
        read("parquet", table, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"^empty: no file \*\.parquet in this folder$"):
        load(ParquetFile(source="parquet", path="empty", target="y"), tmp_path)


def test_check_sees_the_columns_of_a_parquet_file(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table(COLUMNS), tmp_path / "rows")
    section = ParquetFile(source="parquet", path="rows", target="yy", columns={"agee": "skip"})
    told = [text for _, text in section.unlike(tmp_path)]
    assert any("no column 'yy'" in text for text in told)
    assert any("no column 'agee'. Did you mean 'age'?" in text for text in told)


def test_what_was_learnt_reads_other_rows(tmp_path: Path) -> None:
    """A training row's cells give its features again; gaps and new categories are as in training."""
    table = pa.table(COLUMNS)
    splits = read("parquet", table, tmp_path)
    learnt = json.loads(json.dumps(splits.learnt))
    again = features_of(learnt, as_cells(table, "rows"))
    known = {tuple(row) for row in again.tolist()}
    assert again.dtype == np.float32
    for part in (splits.train, splits.valid):
        seen = part.batch(np.arange(len(part)))["features"]
        assert {tuple(row) for row in seen.tolist()} <= known
    other = pa.table({"city": ["Paris", None, "Oslo"], "price": [0.0, 1.0, 2.0], "age": [None, None, 3]})
    rows = features_of(learnt, as_cells(other, "rows"))
    age, city = learnt["columns"][0], learnt["columns"][2]
    assert rows[0, 2:].tolist() == [0, 0]
    assert rows[1, 2:].tolist() == pytest.approx(city["fill"])
    assert rows[2, 2:].tolist() == [1, 0]
    assert rows[0, 0] == np.float32(age["fill"])
    assert rows[2, 0] == pytest.approx((3 - age["mean"]) / age["scale"])
    with pytest.raises(DataError, match="rows: no column 'age'"):
        features_of(learnt, as_cells(other.drop(["age"]), "rows"))
