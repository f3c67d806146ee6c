"""Ranks on a cluster, and whether they see MLflow's store."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlsys.errors import UsageError
from dlsys.jobs.launch.beacon import Beacon
from dlsys.jobs.launch.presence import Place
from dlsys.jobs.launch.ray_actors import in_ranks
from dlsys.jobs.launch.ray_ranks import _Rank, _tell_blind
from dlsys.spec.script.job import ScriptJob

PLACES = [Place(node, f"10.0.0.{node}", ()) for node in ("2", "1", "2", "3")]
PLAIN = {"kind": "script", "name": "s", "command": ["true"], "resources": {"workers": 4}}
JOB = ScriptJob.model_validate(PLAIN)
STRICT = ScriptJob.model_validate({**PLAIN, "expect": {"loss": "< 1"}})
STORE = "sqlite:////here/mlflow.db"


def test_a_rank_sees_a_folder_or_does_not(tmp_path: Path) -> None:
    with Beacon(tmp_path) as beacon:
        assert _Rank().sees(beacon)
        assert not _Rank().sees(Beacon(tmp_path / "elsewhere", beacon.text))


def test_rank_0_is_where_the_store_is_seen() -> None:
    places, actors = in_ranks(PLACES, ["a", "b", "c", "d"], first={"2"})
    assert [place.node for place in places] == ["2", "2", "1", "3"]
    assert actors == ["a", "c", "b", "d"]
    assert [place.node for place in in_ranks(PLACES, [*"abcd"])[0]] == ["1", "2", "2", "3"]


def test_who_does_not_see_the_store_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    _tell_blind([1, 3], PLACES, STORE, STRICT)
    said = capsys.readouterr().err
    assert "MLflow's store is a file, /here/mlflow.db, which is not seen by rank 1 on 10.0.0.1" in said
    assert "rank 3 on 10.0.0.3: what is logged there is in no run. Name a tracking server" in said
    _tell_blind([0, 1, 2, 3], PLACES, STORE, JOB)
    with pytest.raises(UsageError, match="no figure could be held against `expect`"):
        _tell_blind([0, 1, 2, 3], PLACES, STORE, STRICT)
