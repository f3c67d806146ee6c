"""Rows whose part is decided by a column or by files: all of them, once, and none on the wrong side."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlsys.data import Dataset, Splits, load
from dlsys.data.features import files
from dlsys.data.split import RowSplit, split_groups, split_times
from dlsys.errors import DataError, SpecError
from dlsys.spec import yaml
from dlsys.spec.data import CSVFile, JSONLines, LabelledTexts, OwnSource, ParquetFile
from dlsys.spec.data.section import SplitBy
from dlsys.spec.files import files as named
from dlsys.spec.fingerprint import fingerprint
from dlsys.spec.load import load as load_job

ROWS = 60
WHEN = {"when": "date"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def frame(rows: int = ROWS) -> pd.DataFrame:
    n = np.arange(rows)
    return pd.DataFrame(
        {
            "n": n,  # which row it is
            "who": [f"p{row % 7}" for row in n],
            "when": [f"2026-01-{1 + row * 11 % 30:02d}" for row in n],
            "part": [("train", "valid", "train", "Test")[row % 4] for row in n],
            "y": [("a", "b", "b")[row % 3] for row in n],
        }
    )


def read(folder: Path, table: pd.DataFrame | None = None, **options: Any) -> Splits:
    (frame() if table is None else table).to_csv(folder / "rows.csv", index=False)
    given = {"columns": ("n",), "target": "y", **options}
    return load(CSVFile(source="csv", path="rows.csv", **given), folder)


def rows_of(splits: Splits) -> list[np.ndarray]:
    """The numbers of the rows in each part, from what became of the column `n`."""
    (column,) = [column for column in splits.learnt["columns"] if column["name"] == "n"]
    parts = []
    for part in (splits.train, splits.valid, splits.test):
        if part is None:
            parts.append(np.empty(0, dtype=np.int64))
            continue
        features = part.batch(np.arange(len(part)))["features"][:, 0].double().numpy()
        parts.append(np.round(features * column["scale"] + column["mean"]).astype(np.int64))
    return parts


def sound(parts: RowSplit, rows: int, *, test: bool) -> None:
    assert sorted(np.concatenate(parts)) == list(range(rows))
    assert len(parts.train)
    assert len(parts.valid)
    assert bool(len(parts.test)) == test


@given(
    groups=st.lists(st.integers(0, 12), min_size=8, max_size=80),
    valid=st.floats(0.01, 0.4),
    test=st.sampled_from([0.0, 0.1, 0.4]),
    seed=st.integers(0, 5),
)
def test_a_group_lies_in_one_part(groups: list[int], valid: float, test: float, seed: int) -> None:
    _, codes = np.unique(groups, return_inverse=True)
    if len(set(groups)) < 2 + (test > 0):
        with pytest.raises(DataError, match=r"x: \d groups? cannot be shared by \d parts"):
            split_groups(codes, valid=valid, test=test, seed=seed, name="x")
        return
    parts = split_groups(codes, valid=valid, test=test, seed=seed, name="x")
    sound(parts, len(groups), test=test > 0)
    seen = [set(codes[part]) for part in parts]
    assert sum(map(len, seen)) == len(set.union(*seen))
    again = split_groups(codes, valid=valid, test=test, seed=seed, name="x")
    assert all(np.array_equal(one, two) for one, two in zip(parts, again, strict=True))


def test_groups_of_equal_size_keep_the_shares_and_the_seed_decides() -> None:
    codes = np.repeat(np.arange(200), 5)
    parts = [split_groups(codes, valid=0.1, test=0.2, seed=seed, name="x") for seed in (0, 1)]
    assert [len(part) for part in parts[0]] == [700, 100, 200]
    assert len(set(codes[parts[0].valid]) & set(codes[parts[1].valid])) < 10


@given(
    times=st.lists(st.integers(0, 30), min_size=8, max_size=80),
    valid=st.floats(0.01, 0.4),
    test=st.sampled_from([0.0, 0.1, 0.4]),
)
def test_later_rows_are_never_trained_on(times: list[int], valid: float, test: float) -> None:
    moments = np.array(times, dtype=np.float64)
    if len(set(times)) < 2 + (test > 0):
        with pytest.raises(DataError, match="would be empty"):
            split_times(moments, valid=valid, test=test, name="x")
        return
    with suppress(DataError):  # a moment of many rows leaves nothing before it
        parts = split_times(moments, valid=valid, test=test, name="x")
        nothing_later(moments, parts, valid, test)


def nothing_later(moments: np.ndarray, parts: RowSplit, valid: float, test: float) -> None:
    sound(parts, len(moments), test=test > 0)
    assert moments[parts.train].max() < moments[parts.valid].min()
    if test:
        assert moments[parts.valid].max() < moments[parts.test].min()
    assert len(parts.train) <= len(moments) - max(1, round(valid * len(moments)))


def test_a_moment_that_a_boundary_falls_into_is_of_the_later_part() -> None:
    times = np.array([5, 1, 2, 3, 3, 3, 4, 4, 6, 0], dtype=np.float64)
    parts = split_times(times, valid=0.4, test=0.2, name="x")
    assert [times[part].tolist() for part in parts] == [[1, 2, 0], [3, 3, 3, 4, 4], [5, 6]]


def test_groups_of_a_table_and_their_column(tmp_path: Path) -> None:
    splits = read(tmp_path, split_by=SplitBy(group="who"), columns=WHEN)
    names = [column["name"] for column in splits.learnt["columns"]]
    assert names == ["n", "when", "part"], "the group is not learnt from"
    groups = [set(part % 7) for part in rows_of(splits)]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 7
    assert any("rows.csv: column 'who'" in note and "of 5, 1 and 1 values" in note for note in splits.notes)
    for columns in ({"who": "category"}, {"who": "category", "n": "number"}):
        learnt = read(tmp_path, split_by=SplitBy(group="who"), columns=columns | WHEN).learnt
        assert "who" in [column["name"] for column in learnt["columns"]], "unless the job names it"


def test_the_order_of_rows_does_not_decide_where_groups_go(tmp_path: Path) -> None:
    one = rows_of(read(tmp_path, split_by=SplitBy(group="who")))
    two = rows_of(read(tmp_path, frame().iloc[::-1], split_by=SplitBy(group="who")))
    assert [set(part) for part in one] == [set(part) for part in two]


@pytest.mark.parametrize("column", ["when", "n"])
def test_times_of_a_table(column: str, tmp_path: Path) -> None:
    splits = read(tmp_path, split_by=SplitBy(time=column), columns=("n",), valid=0.2, test=0.2)
    times = [frame()[column].to_numpy()[part] for part in rows_of(splits)]
    assert max(times[0]) < min(times[1]) <= max(times[1]) < min(times[2])
    first = f"from {min(times[0])}, {min(times[1])}, {min(times[2])} on"
    assert any(first in note for note in splits.notes), splits.notes


def test_each_part_has_its_share_of_a_stratum(tmp_path: Path) -> None:
    splits = read(tmp_path, frame(203), split_by=SplitBy(strata="who"), valid=0.2, test=0.1)
    parts = rows_of(splits)
    assert sorted(np.concatenate(parts)) == list(range(203))
    for value in range(7):
        assert abs((parts[1] % 7 == value).sum() - 29 * len(parts[1]) / 203) < 1
        assert abs((parts[2] % 7 == value).sum() - 29 * len(parts[2]) / 203) < 2


def test_a_stratum_of_numbers_is_spread_by_size(tmp_path: Path) -> None:
    valid = np.sort(rows_of(read(tmp_path, frame(200), split_by=SplitBy(strata="n")))[1])
    assert set(np.diff(valid)) == {10}, "every tenth by size"


def test_a_column_names_the_part(tmp_path: Path) -> None:
    splits = read(tmp_path, split_by=SplitBy(part="part"), columns=WHEN)
    assert [column["name"] for column in splits.learnt["columns"]] == ["n", "who", "when"]
    train, valid, test = rows_of(splits)
    assert (set(train % 4), set(valid % 4), set(test % 4)) == ({0, 2}, {1}, {3})
    assert sum(splits.learnt["target"]["counts"]) == len(train)
    mean = next(column["mean"] for column in splits.learnt["columns"] if column["name"] == "n")
    assert mean == pytest.approx(train.mean()), "learnt from the training rows alone"


def test_what_nobody_gave_for_validation_is_of_the_training_rows(tmp_path: Path) -> None:
    table = frame().assign(part=["train", "test"] * (ROWS // 2))
    train, valid, test = rows_of(read(tmp_path, table, split_by=SplitBy(part="part"), valid=0.2))
    assert len(valid) == 6
    assert set(train % 2) | set(valid % 2) == {0}
    assert set(test % 2) == {1}
    table = frame().assign(part=["train", "valid"] * (ROWS // 2))
    assert read(tmp_path, table, split_by=SplitBy(part="part")).test is None


@pytest.mark.parametrize("large", [False, True])
def test_a_file_for_each_part(large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LARGE", 0 if large else files.LARGE)
    more = frame(90)
    # Its columns stand in another order, it has one more, and pandas' index as the first file has it.
    more.iloc[60:].assign(more=1).reset_index(drop=True)[["y", "more", "n", "who", "when", "part"]].to_csv(
        tmp_path / "v.csv"
    )
    frame().to_csv(tmp_path / "rows.csv")
    by = SplitBy(valid="v.csv")
    section = CSVFile(source="csv", path="rows.csv", target="y", columns=WHEN, split_by=by)
    splits = load(section, tmp_path)
    assert [column["name"] for column in splits.learnt["columns"]] == ["n", "who", "when", "part"]
    train, valid, test = rows_of(splits)
    assert sorted(train) == list(range(60))
    assert sorted(valid) == list(range(60, 90))
    assert not len(test)
    before = splits.valid.batch(np.arange(30))
    again = load(section, tmp_path).valid.batch(np.arange(30))
    assert all(torch.equal(before[name], again[name]) for name in before)
    more.iloc[70:].to_csv(tmp_path / "v.csv")
    assert len(load(section, tmp_path).valid) == 20, "another file is read anew"


def test_what_is_wrong_in_another_file_is_told_with_it(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "rows.csv", index=False)
    section = CSVFile(
        source="csv", path="rows.csv", target="y", columns=("n",), split_by=SplitBy(test="t.csv")
    )
    frame(10).assign(n=["?"] + ["1"] * 9).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match=r"^t\.csv:2: column 'n' is '\?', which counts as missing"):
        load(section, tmp_path)
    frame(10).drop(columns="y").to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match=r"^t\.csv:1: no column 'y', which rows\.csv has"):
        load(section, tmp_path)
    (tmp_path / "t.csv").unlink()
    with pytest.raises(DataError, match=r"^t\.csv: no such file"):
        load(section, tmp_path)


def test_typed_files_for_each_part(tmp_path: Path) -> None:
    frame().to_parquet(tmp_path / "a")
    frame(20).astype({"n": float}).to_parquet(tmp_path / "b")
    by = SplitBy(valid="b", test="b")
    splits = load(ParquetFile(source="parquet", path="a", target="y", columns=("n",), split_by=by), tmp_path)
    assert [len(part) for part in rows_of(splits)] == [60, 20, 20]
    frame().to_json(tmp_path / "a", orient="records", lines=True)
    frame(20).assign(n="1").to_json(tmp_path / "b", orient="records", lines=True)
    with pytest.raises(DataError, match="a, b, b: have columns of different types"):
        load(JSONLines(source="jsonl", path="a", target="y", split_by=by), tmp_path)


def test_a_chosen_parquet_column_need_not_be_the_one_that_decides(tmp_path: Path) -> None:
    frame().to_parquet(tmp_path / "a")
    section = ParquetFile(
        source="parquet", path="a", target="y", columns=("n",), split_by=SplitBy(group="who")
    )
    assert sum(map(len, rows_of(load(section, tmp_path)))) == ROWS


@pytest.mark.parametrize(
    ("by", "change", "said"),
    [
        ({"group": "whom"}, {}, r"rows\.csv:1: data\.split_by: no column 'whom'. Did you mean 'who'\?"),
        (
            {"group": "y"},
            {"y": ["a", "b"] * 30},
            r"rows\.csv: column 'y': 2 groups cannot be shared by 3 parts",
        ),
        (
            {"group": "who"},
            {"who": ["p", "q", ""] * 20},
            r"rows\.csv:4: column 'who' decides the row's part, and is empty: fill it, or leave the row out",
        ),
        (
            {"part": "part"},
            {"part": ["train", "dev"] * 30},
            r"rows\.csv:3: column 'part' names the row's part, and 'dev' is none of train, valid",
        ),
        ({"part": "part"}, {"part": "test"}, r"rows\.csv: column 'part': no row is for training"),
        ({"time": "when"}, {"when": "2026-01-01"}, r"column 'when': training would be empty"),
        ({"time": "who"}, {}, r"rows\.csv:2: column 'who': 'p0' is not a date such as 2026-01-31"),
        ({"time": "n"}, {"n": ["x", *range(59)]}, r"rows\.csv:2: column 'n': 'x' is not a finite number"),
    ],
)
def test_what_cannot_be_split_is_told(by: Any, change: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        read(tmp_path, frame().assign(**change), split_by=SplitBy(**by), columns=())


def test_rows_that_are_dropped_are_in_no_part(tmp_path: Path) -> None:
    table = frame().assign(who=[None if row % 5 == 0 else f"p{row % 7}" for row in range(ROWS)])
    parts = rows_of(read(tmp_path, table, split_by=SplitBy(group="who"), missing="drop"))
    assert sorted(np.concatenate(parts)) == [row for row in range(ROWS) if row % 5]
    groups = [set(part % 7) for part in parts]
    assert sum(map(len, groups)) == len(set.union(*groups))


def test_a_class_that_is_never_trained_on_is_told(tmp_path: Path) -> None:
    table = frame().assign(y=["a", "b"] * 25 + ["new"] * 10)
    splits = read(tmp_path, table, split_by=SplitBy(time="n"), valid=0.1, test=0.1)
    assert "rows.csv: no training row is of class 'new'" in splits.notes


def test_texts(tmp_path: Path) -> None:
    table = frame().assign(text=[f"word{row}" for row in range(ROWS)])
    table.to_csv(tmp_path / "r.csv", index=False)

    def parts(**by: str) -> tuple[set[int], int, Dataset | None]:
        given = {"text": "text", "target": "y", "split_by": SplitBy(**by)}
        splits = load(LabelledTexts(source="texts", path="r.csv", **given), tmp_path)
        # Words of the training rows alone are known: they tell which rows these are.
        return {int(word[4:]) for word in splits.shape.vocabulary[2:]}, len(splits.valid), splits.test

    groups = parts(group="who")[0]
    assert {row % 7 for row in groups}.isdisjoint({row % 7 for row in set(range(ROWS)) - groups})
    assert parts(time="n")[0] == set(range(48))
    assert parts(part="part")[0] == {row for row in range(ROWS) if row % 2 == 0}
    table.head(10).to_csv(tmp_path / "v.csv")
    known, valid, test = parts(valid="v.csv")
    assert (known, valid, test) == (set(range(ROWS)), 10, None)


@pytest.mark.parametrize("what", ["features of a table", "columns of a table", "arrays"])
def test_rows_of_ones_own(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "split_own_rows.py").write_text(
        "import numpy as np, pandas as pd\n"
        "n = np.arange(60)\n"
        "who = [f'p{row % 7}' for row in n]\n"
        "def table(): return pd.DataFrame({'n': n, 'who': who, 'label': n % 2})\n"
        "def arrays(): return {'n': n, 'who': np.array(who), 'label': n % 2}\n"
        "def parts(): return {'train': arrays(), 'valid': arrays()}\n"
        "def short(): return {'n': n, 'whom': n[:50]}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    options: dict[str, Any] = {"source": f"split_own_rows:{'arrays' if what == 'arrays' else 'table'}"}
    if what.startswith("features"):
        options["target"] = "label"
    splits = load(OwnSource(**options, split_by=SplitBy(group="who")), tmp_path)
    if what.startswith("features"):
        groups = [set(part % 7) for part in rows_of(splits)]
    else:
        assert splits.test is not None
        batches = [part.batch(np.arange(len(part))) for part in (splits.train, splits.valid, splits.test)]
        assert set(batches[0]) == {"n", "label"}
        groups = [set((batch["n"] % 7).tolist()) for batch in batches]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 7
    for source, said in (
        ("arrays", "no field 'whom' with a value"),
        ("parts", "gives train, valid, and data"),
        ("short", "of unequal length: whom 50, others 60"),
    ):
        with pytest.raises(DataError, match=said):
            load(OwnSource(source=f"split_own_rows:{source}", split_by=SplitBy(group="whom")), tmp_path)


JOB = """\
kind: train
name: t
workload: softmax-regression
data: {{source: {source}, path: rows.csv, target: y, split_by: {by}}}
batch_size: 4
stop: {{epochs: 1}}
"""


def job(folder: Path, by: str, source: str = "csv") -> Path:
    frame().to_csv(folder / "rows.csv", index=False)
    (folder / "job.yaml").write_text(JOB.format(by=by, source=source))
    return folder / "job.yaml"


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ("{group: whom}", "data.split_by: {}/rows.csv: no column 'whom'. Did you mean 'who'?"),
        (
            "{group: who, time: when}",
            "data.split_by: say one of group, time, strata and part, or valid and test",
        ),
        ("{}", "data.split_by: say one of group, time, strata and part, or valid and test: got none"),
        ("{valid: v.csv}", "data.split_by.valid: no such file: v.csv (looked for {}/v.csv)"),
        ("{test: odd.csv}", "data.target: {}/odd.csv: no column 'y'"),
    ],
)
def test_check_sees_it(by: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "odd.csv").write_text("n,who\n")
    with pytest.raises(SpecError) as found:
        load_job(job(tmp_path, by))
    assert said.format(tmp_path) in str(found.value)


def test_the_other_files_are_of_the_jobs_own(tmp_path: Path) -> None:
    frame(9).to_csv(tmp_path / "v.csv", index=False)
    loaded = load_job(job(tmp_path, "{valid: v.csv}"))
    assert (("data", "split_by", "valid"), "v.csv") in list(named(loaded.job))
    before = fingerprint(loaded.job, tmp_path)
    frame(8).to_csv(tmp_path / "v.csv", index=False)
    after = fingerprint(loaded.job, tmp_path)
    assert {name for name in before if before[name] != after[name]} == {"data.split_by.valid"}
    assert yaml.dump(loaded.job.model_dump(mode="json"))


def test_a_function_of_ones_own_has_no_other_files(tmp_path: Path) -> None:
    path = job(tmp_path, "{valid: rows.csv}", "'json:loads'")
    with pytest.raises(SpecError, match=r"data\.split_by: an own function has no other files: return"):
        load_job(path)
