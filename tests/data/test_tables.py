from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dlsys.data import Dataset, Splits
from dlsys.data.features import files
from dlsys.data.features.files import csv_file
from dlsys.errors import DataError
from dlsys.spec.data import CSVFile


@pytest.fixture(params=["in memory", "kept on disk"], autouse=True)
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """All of it holds for small tables and for large ones."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "LARGE", -1 if request.param == "kept on disk" else files.LARGE)
    return str(request.param)


def read(folder: Path, content: str | bytes, **options: object) -> Splits:
    data = content.encode() if isinstance(content, str) else content
    (folder / "data.csv").write_bytes(data)
    section = CSVFile(source="csv", path="data.csv", **{"target": "y", "test": 0.0, **options})
    return csv_file(section, folder)


def message(folder: Path, content: str | bytes, **options: object) -> str:
    with pytest.raises(DataError) as error:
        read(folder, content, **options)
    return str(error.value)


def everything(part: Dataset) -> dict[str, torch.Tensor]:
    return part.batch(np.arange(len(part)))


def table(header: str, rows: list[str]) -> str:
    return "\n".join([header, *rows])


def test_numbers_categories_and_classes(tmp_path: Path) -> None:
    rows = [f"{i},{'red' if i % 2 else 'blue'},{(10, 9, 2)[i % 3]}" for i in range(60)]
    splits = read(tmp_path, table("n, c ,y", rows), columns=("c", "n"))
    assert splits.shape.row == {"features": (3,), "label": ()}
    assert splits.shape.classes == 3
    train = everything(splits.train)
    blue, red, number = train["features"].T
    assert torch.equal(blue, 1 - red)
    assert set(red.tolist()) == {0.0, 1.0}
    assert abs(float(number.mean())) < 1e-6
    assert abs(float(number.std(correction=0)) - 1) < 1e-6
    # Sorted as numbers: 2, 9, 10. Rows rise in the file, so the number orders them.
    first = number.argsort()
    i = ((number[first] - number.min()) / (number.max() - number.min()) * 59).round().long()
    assert torch.equal(train["label"][first], torch.tensor([2, 1, 0])[i % 3])


def test_text_classes_are_sorted(tmp_path: Path) -> None:
    rows = [f"{i % 2},{'dog' if i % 2 else 'cat'}" for i in range(20)]
    train = everything(read(tmp_path, table("x,y", rows)).train)
    assert torch.equal(train["label"], (train["features"][:, 0] > 0).long())


def test_regression_target_keeps_its_unit(tmp_path: Path) -> None:
    rows = [f"{i},{100 * i}" for i in range(20)]
    splits = read(tmp_path, table("x,y", rows), task="regression", valid=0.25)
    assert splits.shape.row == {"features": (1,), "target": ()}
    assert splits.shape.classes == 0
    targets = torch.cat([everything(part)["target"] for part in (splits.train, splits.valid)])
    assert targets.dtype == torch.float32
    assert sorted(targets.tolist()) == [100.0 * i for i in range(20)]


def leak_table(valid_rows: set[int], x: str, c: str) -> str:
    rows = [f"{x},{c},{i}" if i in valid_rows else f"{i % 7},{'pq'[i % 2]},{i}" for i in range(50)]
    return table("x,c,y", rows)


def test_nothing_leaks_from_validation_rows(tmp_path: Path) -> None:
    options = {"task": "regression", "valid": 0.2}
    valid = read(tmp_path, leak_table(set(), "", ""), **options).valid
    rows = {int(y) for y in everything(valid)["target"]}
    plain = read(tmp_path, leak_table(rows, "1", "p"), **options)
    wild = read(tmp_path, leak_table(rows, "1000000", "never-seen"), **options)
    for field, tensor in everything(plain.train).items():
        assert torch.equal(tensor, everything(wild.train)[field])
    strange = everything(wild.valid)["features"]
    assert strange.shape[1] == 3
    assert (strange[:, 0] > 1000).all()
    assert (strange[:, 1:] == 0).all()  # an unknown category is no category


def test_missing_mean_is_of_the_training_rows(tmp_path: Path) -> None:
    rows = [f"{'' if i % 5 == 0 else i},{'nan' if i % 5 == 1 else 'ab'[i % 2]},{i}" for i in range(100)]
    splits = read(tmp_path, table("x,c,y", rows), task="regression", missing="mean")
    train = everything(splits.train)
    known = train["target"] % 5 != 0
    number = train["features"][:, 0]
    assert abs(float(number[known].mean())) < 1e-6
    assert (number[~known].abs() < 1e-6).all()
    known = train["target"] % 5 != 1
    codes = train["features"][:, 1:]
    assert torch.allclose(codes[~known], codes[known].mean(0).expand(int((~known).sum()), 2))


def test_missing_drop(tmp_path: Path) -> None:
    rows = [f"{'' if i == 3 else i},{'' if i == 4 else i % 2},{'' if i == 5 else i}" for i in range(20)]
    splits = read(tmp_path, table("x,y,unused", rows), missing="drop", columns=("x",))
    assert len(splits.train) + len(splits.valid) == 18  # the unused column's empty cell costs nothing


def test_quotes_delimiters_byte_order_mark_and_blank_lines(tmp_path: Path) -> None:
    rows = [f'"a; ""{i % 2}""\nb"; {i};{i % 2}' for i in range(20)]
    content = b"\xef\xbb\xbf" + table("c;x;y", ["", *rows, "", ""]).replace("\n", "\r\n").encode()
    splits = read(tmp_path, content, delimiter=";")
    train = everything(splits.train)
    assert splits.shape.row["features"] == (3,)
    assert torch.equal(train["features"][:, 1].long(), train["label"])


def test_a_constant_column_is_zero(tmp_path: Path) -> None:
    splits = read(tmp_path, table("x,z,y", [f"{i},7.1,{i % 2}" for i in range(20)]))
    assert (everything(splits.train)["features"][:, 1].abs() < 1e-9).all()


GOOD = [f"{i},{i % 2}" for i in range(20)]


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        ("", {}, "data.csv: is empty; a CSV file starts with a header"),
        ("\n\n", {}, "data.csv: is empty; a CSV file starts with a header"),
        ("x,y\n", {}, "data.csv: no rows under the header"),
        ("a,b,c,d,y\n" + "1,2,3,4,0\n" * 15 + "1,2,3\n", {}, "data.csv:17: 3 cells, the header has 5"),
        ('x,y\n"a\nb\nc",1\n1\n', {}, "data.csv:5: 1 cell, the header has 2"),
        ("x,y\n\n1\n", {}, "data.csv:3: 1 cell, the header has 2"),
        ('x,y\n1,2\n"a,1\n', {}, "data.csv:3: not CSV: unexpected end of data"),
        (b"x,y\n1,2\n\xff,2\n", {}, "data.csv:3: 0xff is not UTF-8 (invalid start byte)"),
        (
            "age,y\n1,2\n",
            {"target": "agee"},
            "data.csv:1: data.target: no column 'agee'. Did you mean 'age'? Known: age, y",
        ),
        (
            "age,y\n1,2\n",
            {"columns": ("agee",)},
            "data.csv:1: data.columns: no column 'agee'. Did you mean 'age'? Known: age, y",
        ),
        ("x,y\n1,2\n", {"columns": ("x", "y")}, "data.csv:1: data.columns: 'y' is the target; leave it out"),
        ("x,x,y\n1,1,2\n", {}, "data.csv:1: two columns 'x'"),
        ("y\n1\n", {}, "data.csv:1: no column besides the target 'y'"),
        (
            table("x,y", [*GOOD, ",1"]),
            {},
            "data.csv:22: column 'x' is empty; fill it, or say missing: mean or drop",
        ),
        (
            table("x,y", [*GOOD, "1,"]),
            {"missing": "mean"},
            "data.csv:22: the target 'y' is empty; fill it, or say missing: drop",
        ),
        (table("x,y", ["1,a"] * 20), {}, "data.csv: the target 'y' has only one class: 'a'"),
        (
            table("x,y", ["1,1"] * 20 + ["1,one"]),
            {"task": "regression"},
            "data.csv:22: column 'y': 'one' is not a finite number",
        ),
        (
            table("x,y", ["1,1"] * 20 + ["1,1e99"]),
            {"task": "regression"},
            "data.csv:22: the target 1e99 is too large for fp32",
        ),
        (
            table("x,y", [*GOOD, "inf,1"]),
            {"columns": {"x": "number"}},
            "data.csv:22: column 'x': 'inf' is not a finite number",
        ),
        (
            table("x,y", [f"{i % 3 - 1}e308,{i % 2}" for i in range(20)]),
            {},
            "data.csv: column 'x' has numbers too large to standardise",
        ),
        (
            table("x,y", [f"{5e307 if i < 3 else 1},{i % 2}" for i in range(20)]),
            {},
            "data.csv: column 'x' has numbers too large to standardise",
        ),
        (
            table("x,y", [f",{i % 2}" for i in range(20)]),
            {"missing": "mean"},
            "data.csv:2: column 'x' is empty in all rows: say columns: {x: skip}",
        ),
        (
            table("x,y", [f"id{i % 1249},{i % 2}" for i in range(1250)]),
            {"valid": 0.1},
            "data.csv:2: column 'x' has 1249 categories; at most 1000 can become features: "
            "leave it out, columns: {x: skip}",
        ),
        (
            "x,y\n1,0\n",
            {"task": "regression"},
            "data.csv: 1 rows are too few: 1 for validation and 0 for the test leave none to train on",
        ),
    ],
)
def test_errors_name_the_place(tmp_path: Path, content: str, options: dict, expected: str) -> None:
    assert message(tmp_path, content, **options) == expected


def test_all_problems_at_once_but_not_without_end(tmp_path: Path) -> None:
    lines = message(tmp_path, table("x,y", ["1"] * 30)).splitlines()
    assert lines[0] == "data.csv:2: 1 cell, the header has 2"
    assert lines[9:] == ["data.csv:11: 1 cell, the header has 2", "and 20 more"]


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^no\.csv: no such file \(looked for .*no\.csv\)$"):
        csv_file(CSVFile(source="csv", path="no.csv", target="y"), tmp_path)
