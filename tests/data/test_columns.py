"""What columns are taken for, and what is doubtful."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dlsys.cli.data import show
from dlsys.data import Splits
from dlsys.data.features.columns import Column, Kind
from dlsys.data.features.files import csv_file
from dlsys.errors import DataError
from dlsys.spec.data import CSVFile


def column(
    *cells: str, decimal: str = ".", thousands: str | None = None, said: Kind | None = None, name: str = "x"
) -> Column:
    text = pa.chunked_array([pa.array(part, pa.string()) for part in (cells[:2], cells[2:])])
    return Column(name, text, lambda row: f"f.csv:{row + 2}", decimal, thousands, said=said)


WORDS = ("", "NA", "n/a", "#N/A", "NaN", "null", "NULL", "None", "nil", "?", "-", ".", "<NA>")


@pytest.mark.parametrize("word", WORDS)
def test_words_for_nothing(word: str) -> None:
    found = column("1", word, "3")
    assert found.kind() == "number"
    assert found.missing.tolist() == [False, True, False]
    assert found.present == 2
    assert np.isnan(found.numbers()[1])
    assert column("red", word, "blue").values == ["blue", "red"]


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (("1", "-2.5", "+3", ".5", "1.", "1e-3", "1E5"), "number"),
        (("red", "blue"), "category"),
        # An infinity is none, nor what Python also reads: 1_000, and digits of other scripts.
        (("7e1234", "12e999"), "category"),
        (("1_000", "2_000"), "category"),
        (("inf", "nan", "inf"), "category"),
        (("0x1f", "0xff"), "category"),
        (("1", "2", "many", "few"), "category"),
    ],
)
def test_kinds(cells: tuple[str, ...], kind: str) -> None:
    assert column(*cells).kind() == kind


MANY = [str(i) for i in range(30)]


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ([*MANY, "abc"], "f.csv:32: column 'x': 1 of 31 cells are no numbers, such as 'abc'"),
        ([*MANY, "5%"], "such as '5%'"),
        (["3,14", "2,5", "1"], "looks like numbers with commas, such as '3,14': say data.decimal: ','"),
        (["1,234,567", "5,000"], "say data.thousands: ',', for commas group their digits"),
        (["1,234", "5,000"], "say data.decimal: ',' if commas are decimal points, thousands: ',' if"),
        ([f"name {i}" for i in range(30)], "has another text in each row, such as 'name 0'"),
    ],
)
def test_what_is_doubtful_is_refused_until_the_job_says(cells: list[str], said: str) -> None:
    with pytest.raises(DataError) as found:
        column(*cells).kind()
    assert said in str(found.value)
    assert "columns: {x:" in str(found.value)
    assert column(*cells, said="category").kind() == "category"


def test_numbers_as_other_countries_write_them() -> None:
    assert column("3,14", "-2", decimal=",").numbers().tolist() == [3.14, -2.0]
    assert column("1.234,5", "7", decimal=",", thousands=".").numbers().tolist() == [1234.5, 7.0]
    assert column("1,234,567", "1,000.5", thousands=",").numbers().tolist() == [1234567.0, 1000.5]
    assert column("1.5", "2,5", decimal=",").odd.tolist() == [0], "a point is no comma"


def test_a_column_of_numbers_that_the_job_calls_numbers_has_no_other_cell() -> None:
    with pytest.raises(DataError) as found:
        column("1", "many", "inf", said="number").kind()
    assert str(found.value).splitlines() == [
        "f.csv:3: column 'x': 'many' is not a finite number",
        "f.csv:4: column 'x': 'inf' is not a finite number",
    ]


def test_equal_numbers_are_one_class() -> None:
    names, labels = column("1.0", "0", "1", "0.0", "10", "9").classes()
    assert names == ["0", "1.0", "9", "10"]
    assert labels.tolist() == [1, 0, 1, 0, 3, 2]


@pytest.mark.parametrize(
    ("cells", "refused"),
    [
        ([str(i / 7) for i in range(100)], True),
        ([str(i) for i in range(100)], True),
        ([str(i % 30) for i in range(1000)], False),
        ([str(i % 10 / 2) for i in range(1000)], False),  # half stars
        ([str(i % 30 + 0.5) for i in range(1000)], True),
        ([f"name {i}" for i in range(100)], False),
    ],
)
def test_a_quantity_is_no_class(cells: list[str], refused: bool) -> None:
    if refused:
        with pytest.raises(DataError, match=r"say data\.task: regression, or columns: {x: category}"):
            column(*cells).classes()
    assert len(column(*cells, said="category").classes()[0]) == len(set(cells))


def read(folder: Path, content: str, **options: object) -> Splits:
    (folder / "data.csv").write_text(content)
    return csv_file(CSVFile(source="csv", path="data.csv", **{"target": "y", **options}), folder)


ROWS = "".join(f"{i},{i % 7},{'ab'[i % 2]},{i % 2}\n" for i in range(40))


@pytest.mark.parametrize("header", ["", "Unnamed: 0"])
def test_pandas_index_is_left_out(header: str, tmp_path: Path) -> None:
    found = read(tmp_path, f"{header},n,c,y\n{ROWS}")
    assert found.shape.row["features"] == (3,)
    assert any("counts the rows, as pandas writes its index: left out" in note for note in found.notes)
    named = read(tmp_path, f"id,n,c,y\n{ROWS}")
    assert named.shape.row["features"] == (4,), "under a name of its own it may mean something"
    skipped = read(tmp_path, f"id,n,c,y\n{ROWS}", columns={"id": "skip", "n": "category"})
    assert skipped.shape.row["features"] == (7 + 2,)


def test_what_was_read_is_told(tmp_path: Path) -> None:
    content = f"id,n,c,y\n{ROWS}40,1,a,2\n"
    assert read(tmp_path, content).notes == (
        "data.csv: 41 rows; numbers: id, n; categories: c (2); target y: 3 classes",
        "data.csv: the class 2 has a single row, which may be in no training row",
    )


def test_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.csv"
    rows = [f'{i},{"NA" if i == 3 else i % 5},b{i % 3},"{i},5"' for i in range(30)]
    path.write_text("\n".join(["id,age,city,price", *rows]))
    show(path)
    assert "30 rows, 4 columns" in capsys.readouterr().out
    show(path, as_json=True)
    lines = {line["column"]: line for line in json.loads(capsys.readouterr().out)["columns"]}
    assert lines["id"]["note"] == "counts the rows"
    age, city, price = lines["age"], lines["city"], lines["price"]
    assert (age["kind"], age["missing"], age["examples"]) == ("number", "1", "0 … 4")
    assert (city["kind"], city["values"]) == ("category", "3")
    assert price["kind"] == "doubtful"
    assert "decimal: ','" in price["note"]


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ([f"{i},{i % 10}" for i in range(60)], "looks like numbers with commas, such as '0,0'"),
        (
            [f"name-{i}" for i in range(60)],
            "another text in each row, .* name another target, or say",
        ),
        ([str(i) if i % 20 else "unknown" for i in range(60)], "3 of 60 cells are no numbers"),
    ],
)
def test_a_class_that_reads_as_something_else_is_refused(cells: list[str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        column(*cells).classes()
    assert len(column(*cells, said="category").classes()[0]) > 20


def test_few_classes_are_names_whatever_they_look_like() -> None:
    names, codes = column(*["1,5", "2,5", "1,5", "other"] * 9).classes()
    assert names == ["1,5", "2,5", "other"]
    assert codes[:4].tolist() == [0, 1, 0, 2]
