"""`dlsys.find`, `dlsys.runs` and a run's figures: the same from its folder and from MLflow."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas
import pytest

import dlsys
from dlsys.errors import UsageError
from dlsys.track.spool import records

NAMES = ("train/loss", "valid/accuracy")


def test_a_curve_has_a_column_for_each_metric(trained: dlsys.Run) -> None:
    curve = trained.curve(*NAMES)
    assert list(curve.columns) == ["step", *NAMES]
    assert curve["step"].tolist() == [5, 10, 15, 20, 23, 25, 30, 35, 40, 45, 46]
    measured = curve.dropna()
    assert measured["step"].tolist() == [23, 46], "the validation set is measured once an epoch"
    assert measured["valid/accuracy"].iloc[-1] == trained.metrics["valid/accuracy"]
    assert curve["train/loss"].iloc[-1] == trained.metrics["train/loss"]


def test_without_names_all_are_there(trained: dlsys.Run) -> None:
    assert trained.folder is not None
    spool = [record for record, _ in records(trained.folder / "spool" / "rank-0.jsonl")]
    measured = {name for record in spool for name in record.get("m", {})}
    assert set(trained.curve().columns) == {"step", *measured} == {"step", *trained.metrics}


def test_an_unknown_metric_says_what_there_is(trained: dlsys.Run) -> None:
    with pytest.raises(UsageError, match=r"no metric 'valid/acuracy'\. Did you mean 'valid/accuracy'\?"):
        trained.curve("valid/acuracy")


def test_mlflow_says_the_same_once_the_folder_is_gone(trained: dlsys.Run, there: Path) -> None:
    curve, job = trained.curve(*NAMES), trained.job
    assert job["schedule"]["name"] == "constant", "defaults are filled in"
    (there / "runs").rename(there / "away")
    try:
        assert trained.curve(*NAMES).equals(curve)
        assert trained.job == job
        found = dlsys.find("digits-")
        assert found == trained
        assert found.folder is None
        assert found.metrics == trained.metrics
        assert found.curve(*NAMES).equals(curve)
        with pytest.raises(UsageError, match=r"no metric 'x'\."):
            found.curve("x")
        with pytest.raises(UsageError, match="its folder is not here"):
            dlsys.load_model(found)
    finally:
        (there / "away").rename(there / "runs")


def test_a_run_is_found_by_the_beginning_of_its_id(trained: dlsys.Run, there: Path) -> None:
    (mlflow,) = (there / "runs").glob("*/mlflow.json")
    for prefix in (trained.id, trained.id[:9]):
        found = dlsys.find(prefix)
        assert found == trained
        assert (found.folder, found.metrics, found.store) == (trained.folder, trained.metrics, trained.store)
    with pytest.raises(UsageError, match="no run 'other-'"):
        dlsys.find("other-")
    assert mlflow.parent == trained.folder


def test_runs_are_a_table(trained: dlsys.Run, there: Path) -> None:
    table = dlsys.runs()
    assert table["run"].tolist() == [trained.id]
    assert table["status"].tolist() == ["FINISHED"]
    assert table["workload"].tolist() == ["lenet-5"]
    assert table["started"].dt.year.iloc[0] >= 2026
    assert table["test/accuracy"].iloc[0] == trained.metrics["test/accuracy"]
    assert not [name for name in table.columns if name.startswith(("perf/", "system/"))]


def test_before_the_first_run_the_table_is_empty(home: Path) -> None:
    table = dlsys.runs()
    assert len(table) == 0
    assert {"run", "status", "started"} <= set(table.columns)
    assert not home.exists(), "looking makes no store"


def test_a_value_that_is_no_number_stays_so(trained: dlsys.Run, there: Path, tmp_path: Path) -> None:
    """A loss may become NaN; a curve shows it at its step."""
    from dlsys.api.runs import points_of
    from dlsys.paths import RunPaths
    from dlsys.track.spool import Spool

    paths = RunPaths(tmp_path / "run")
    paths.spool.mkdir(parents=True)
    spool = Spool(paths.spool / "rank-1.jsonl")
    spool.metrics(3, {"train/loss": math.inf})
    spool.metrics(4, {"train/loss": 2})
    spool.close()
    assert points_of(paths) == {"train/loss": [(3, math.inf), (4, 2.0)]}


def test_a_runs_features_are_made_by_what_it_learnt(tmp_path: Path) -> None:
    columns = [
        {"name": "x", "kind": "number", "mean": 1.0, "scale": 2.0, "fill": 0.5},
        {"name": "c", "kind": "category", "values": ["a", "b"], "fill": [0.25, 0.75]},
    ]
    run = dlsys.Run("mine", "FINISHED", {}, tmp_path, "")
    table = pandas.DataFrame({"c": ["b", None, "z"], "x": [5.0, 1.0, None]})
    with pytest.raises(UsageError, match="mine: no features can be made: it did not learn from a table"):
        run.features(table)
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "data.json").write_text(json.dumps({"columns": columns}))
    assert run.features(table).tolist() == [[2.0, 0.0, 1.0], [0.0, 0.25, 0.75], [0.5, 0.0, 0.0]]
