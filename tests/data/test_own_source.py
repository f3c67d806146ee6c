"""Rows from users' own functions: whatever they return becomes the same rows, or is refused by name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, TensorDataset

from dlsys.data import Splits, load
from dlsys.errors import DataError, UsageError, WorkloadError
from dlsys.spec import yaml
from dlsys.spec.data import OwnSource
from dlsys.spec.load import check
from dlsys.zoo.load import load_workload

ROWS = 40
X = torch.arange(ROWS * 3, dtype=torch.float64).reshape(ROWS, 3)
Y = torch.arange(ROWS) % 4


class Pairs:
    """A map-style data set of tuples, as torchvision's are."""

    classes = ("a", "b", "c", "d")

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return X[row], int(Y[row])


class Mappings(Pairs):
    classes = ()  # type: ignore[assignment]

    def __getitem__(self, row: int) -> dict[str, Any]:  # type: ignore[override]
        return {"features": X[row].numpy(), "label": int(Y[row]), "weight": 0.5}


class Many(Pairs):
    """One that fetches many rows at once."""

    targets = Y.tolist()

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        assert row == 0, "the first one is looked at, others are fetched together"
        return X[0], int(Y[0])

    def __getitems__(self, rows: list[int]) -> list[tuple[Tensor, int]]:
        return [(X[row], int(Y[row])) for row in rows]


class Stream(IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Any:
        return iter(())


def source(monkeypatch: pytest.MonkeyPatch, make: Callable[..., Any], **options: Any) -> OwnSource:
    """A source whose function is `make`."""
    module = type(sys)("own_rows_for_tests")
    module.make = make  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_rows_for_tests", module)
    return OwnSource(source="own_rows_for_tests:make", **options)


def rows(monkeypatch: pytest.MonkeyPatch, found: Any, **options: Any) -> Splits:
    return load(source(monkeypatch, lambda: found, **options), Path())


def everything(splits: Splits) -> dict[str, Tensor]:
    parts = [part for part in (splits.train, splits.valid, splits.test) if part is not None]
    batches = [part.batch(np.arange(len(part))) for part in parts]
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


@pytest.mark.parametrize(
    "found",
    [
        pytest.param((X, Y), id="tensors"),
        pytest.param([X.numpy(), Y.numpy()], id="arrays"),
        pytest.param({"features": X, "label": Y.int()}, id="mapping"),
        pytest.param(TensorDataset(X, Y), id="torch's TensorDataset"),
        pytest.param(Pairs(), id="tuples"),
        pytest.param(Mappings(), id="mappings"),
        pytest.param(Many(), id="many at once"),
        pytest.param({"train": (X[:30], Y[:30]), "validation": (X[30:], Y[30:])}, id="parts"),
    ],
)
def test_each_kind_gives_the_same_rows(found: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = rows(monkeypatch, found, test=0.0, classes=4)
    seen = everything(splits)
    assert splits.shape.row["features"] == (3,)
    assert splits.shape.row["label"] == ()
    assert splits.shape.classes == 4
    order = seen["features"][:, 0].argsort()
    assert seen["features"].dtype == torch.float32
    assert torch.equal(seen["features"][order], X.float())
    assert torch.equal(seen["label"][order], Y)


def test_rows_are_split_by_class_where_labels_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = rows(monkeypatch, (X, Y), valid=0.2, test=0.1)
    assert [len(splits.train), len(splits.valid)] == [28, 8]
    assert splits.test is not None
    assert len(splits.test) == 4
    valid = splits.valid.batch(np.arange(8))["label"]
    assert torch.bincount(valid).tolist() == [2, 2, 2, 2]
    again, other = (rows(monkeypatch, (X, Y), valid=0.2, test=0.1, split_seed=seed) for seed in (0, 1))
    chosen = [part.valid.batch(np.arange(8))["features"] for part in (splits, again, other)]
    assert torch.equal(chosen[0], chosen[1])
    assert not torch.equal(chosen[0], chosen[2])


def test_a_part_that_is_given_is_not_taken_from_train(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = rows(monkeypatch, {"train": (X, Y), "test": (X[:5], Y[:5])}, valid=0.25)
    assert (len(splits.train), len(splits.valid)) == (30, 10)
    assert splits.test is not None
    assert torch.equal(splits.test.batch(np.arange(5))["features"], X[:5].float())
    whole = rows(monkeypatch, {"train": (X, Y), "valid": (X[:5], Y[:5])}, test=0.0)
    assert (len(whole.train), len(whole.valid), whole.test) == (ROWS, 5, None)


def test_names_of_classes_are_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = rows(monkeypatch, Pairs())
    assert splits.learnt == {"target": {"name": "label", "classes": ["a", "b", "c", "d"]}}
    assert splits.shape.classes == 4


def test_images_of_bytes_become_numbers_from_0_to_1(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.full((ROWS, 3, 4, 4), 255, dtype=torch.uint8)
    splits = rows(monkeypatch, (images, Y))
    assert splits.shape.row == {"image": (3, 4, 4), "label": ()}
    assert (everything(splits)["image"] == 1).all()


def test_a_data_set_of_hugging_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "features": datasets.Sequence(datasets.Value("float64")),
            "label": datasets.ClassLabel(names=["a", "b", "c", "d"]),
        }
    )
    found = datasets.Dataset.from_dict({"features": X.tolist(), "label": Y.tolist()}, features=features)
    splits = rows(monkeypatch, datasets.DatasetDict({"train": found, "test": found.select(range(5))}))
    assert splits.learnt["target"]["classes"] == ["a", "b", "c", "d"]
    assert splits.test is not None
    assert torch.equal(splits.test.batch(np.arange(5))["features"], X[:5].float())
    order = everything(splits)["features"][:, 0]
    assert set(order.tolist()) == set(X[:, 0].tolist())


@pytest.mark.parametrize("make", [pa.table, pd.DataFrame], ids=["Arrow", "pandas"])
def test_a_table_is_read_as_a_file_is(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {"x": X[:, 0].numpy(), "city": ["Rome", "Oslo"] * (ROWS // 2), "y": ["n", "p"] * (ROWS // 2)}
    splits = rows(monkeypatch, make(columns), target="y")
    assert splits.shape.row == {"features": (3,), "label": ()}
    assert splits.learnt["target"] == {"name": "y", "classes": ["n", "p"], "counts": [16, 16]}
    seen = everything(splits)
    assert torch.equal(seen["features"][:, 2].long(), 1 - seen["label"])  # Rome


def test_a_table_of_numbers_without_a_target_is_its_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = rows(monkeypatch, pa.table({"label": Y.numpy(), "a": X[:, 0].numpy()}))
    assert splits.shape.row == {"label": (), "a": ()}


def test_options_are_typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def make(
        count: int, folder: Path, names: list[str] | None = None, scale: float = 1.0, valid: float = 0.0
    ) -> Any:
        assert (count, folder, names, scale, valid) == (ROWS, tmp_path, ["p", "q"], 2, 0.25)
        return X * scale, Y

    good = source(monkeypatch, make, count=ROWS, names=["p", "q"], scale=2, valid=0.25)
    assert float(everything(load(good, tmp_path))["features"].max()) == 2 * (3 * ROWS - 1)
    with pytest.raises(UsageError) as found:
        load(source(monkeypatch, make, count="40", nmaes=[], scale="x"), tmp_path)
    told = str(found.value)
    assert "data.count: must be a whole number, got the text '40'" in told
    assert "data.nmaes: unknown key: own_rows_for_tests:make has no 'nmaes'. Did you mean 'names'?" in told
    assert "data.scale: must be a number, got the text 'x'" in told
    with pytest.raises(UsageError, match=r"data\.count: is required and missing"):
        load(source(monkeypatch, make), tmp_path)


@pytest.mark.parametrize(
    ("found", "options", "said"),
    [
        (None, {}, "returns a NoneType, and wanted is a torch data set"),
        (Stream(), {}, r"returns a stream \(Stream\), whose rows have no numbers"),
        (iter([1]), {}, "returns a stream"),
        ((X, Y[:5]), {}, "unequal length: features 40, label 5"),
        ((X, Y, Y), {}, r"a row has 3 parts: name them, data\.fields"),
        ((X, Y), {"fields": ["image"]}, r"data\.fields names 1, and a row has 2 parts"),
        ({"train": (X, Y), "tset": (X, Y)}, {}, "returns train, tset: 'tset' is none of train"),
        ({"train": (X, Y), "valid": {"features": X}}, {}, "rows of valid have features, those of train"),
        ({"key": X}, {}, "a field is called 'key', which dlsys adds itself"),
        ({"features": X, "label": Y - 1}, {}, "a label is -1: classes are numbered from 0"),
        (
            {"features": X, "label": np.array(["a"] * ROWS)},
            {},
            "the field 'label' holds ndarray, which is no n",
        ),
        (Mappings(), {}, r"how many classes label has cannot be seen .* say data\.classes"),
        ((X[:1], Y[:1]), {}, "1 rows are too few"),
        ([], {}, "returns a data set without rows"),
        ({"train": (X, Y), "test": (X[:0], Y[:0])}, {}, "test has no rows"),
        ([(X[0], 1), (X[0][:2], 1)] * 20, {"classes": 2, "test": 0.0}, "do not fit together"),
    ],
)
def test_what_is_no_rows_is_refused(
    found: Any, options: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=f"^own_rows_for_tests:make: .*{said}"):
        everything(rows(monkeypatch, found, **options))


def test_rows_that_a_workload_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = rows(monkeypatch, (X, Y)).shape
    with pytest.raises(UsageError) as found:
        load_workload("lenet-5", {}, shape)
    assert str(found.value) == (
        "data: lenet-5 takes images with classes (image, label), and these rows have features, label"
    )
    assert load_workload("softmax-regression", {}, shape) is not None


JOB = """\
kind: train
name: mine
workload: softmax-regression
data: {data}
batch_size: 8
stop: {{epochs: 1}}
"""


def problems(data: str) -> str:
    try:
        check(yaml.read(JOB.format(data=data).encode(), "job.yaml"))
    except Exception as error:
        return str(error)
    return ""


def test_check_looks_at_the_function_without_running_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own_rows.py").write_text(
        "raise SystemExit('is not run')\n"
        "def make(size, *, depth=1, folder): ...\n"
        "def loose(**options): ...\n"
        "class Rows:\n    def __init__(self, size=3): ...\n"
    )
    assert problems("{source: 'own_rows:make', size: 3, valid: 0.2}") == ""
    assert problems("{source: 'own_rows:loose', anything: 3}") == ""
    assert problems("{source: 'own_rows:Rows', size: 3}") == ""
    assert "own_rows.py defines no 'mkae'. Did you mean 'make'?" in problems("{source: 'own_rows:mkae'}")
    wrong = problems("{source: 'own_rows:make', szie: 3}")
    assert "data.szie: unknown key: own_rows:make has no 'szie'. Did you mean 'size'?" in wrong
    assert "data.size: is required and missing: own_rows:make needs it" in wrong
    assert "data.valid: must be a number" in problems("{source: 'own_rows:make', size: 1, valid: x}")
    assert "no module 'nowhere'" in problems("{source: 'nowhere:make'}")


def test_a_function_that_fails_is_told_with_its_own_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("own_rows_failing.py").write_text("import nothing_of_that_name\n")
    with pytest.raises(WorkloadError, match=r"data\.source: importing own_rows_failing failed") as found:
        load(OwnSource(source="own_rows_failing:make"), tmp_path)
    assert "own_rows_failing.py" in found.value.traceback


def test_a_plug_in_stands_where_its_name_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "plugin-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[dlsys.sources]\nplugged-rows = plugged_rows:make\n")
    (tmp_path / "plugged_rows.py").write_text(
        "import numpy as np\ndef make(size: int):\n    return np.zeros((size, 2)), np.arange(size) % 2\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    from dlsys.registry import SOURCES

    monkeypatch.delitem(vars(SOURCES), "_table", raising=False)
    try:
        assert problems("{source: plugged-rows, size: 30}") == ""
        assert "has no 'sise'" in problems("{source: plugged-rows, sise: 30}")
        splits = load(OwnSource(source="plugged-rows", size=30), tmp_path)
        assert len(splits.train) == 24
    finally:
        vars(SOURCES).pop("_table", None)
