"""The ready files: found by name from anywhere, and all of them sound."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dlsys.cli import files
from dlsys.cli.run import run
from dlsys.cli.verify import verify
from dlsys.errors import UsageError
from dlsys.spec import load_any, yaml
from dlsys.spec.files import placed
from dlsys.spec.load import Loaded

ROOT = Path(__file__).parents[2]
FILES = sorted(path for kind in ("jobs", "tune", "cluster") for path in ROOT.glob(f"{kind}/**/*.yaml"))
READY = {str(path.relative_to(ROOT).with_suffix("")).removeprefix("jobs/"): path for path in FILES}


@pytest.mark.parametrize("name", READY)
def test_every_ready_name_is_a_sound_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    files.check(name)
    assert capsys.readouterr().out == f"{name}: ok\n"
    assert load_any(files.find(name)).path == READY[name], "a checkout's own file is used"


def test_names_are_distinct() -> None:
    names = [load_any(path).spec.name for path in FILES]
    assert len(names) == len(set(names)) > 0


def test_a_path_is_taken_before_a_ready_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("quickstart").write_text("kind: train\n")
    assert files.find("quickstart") == Path("quickstart")


def test_a_file_that_is_named_as_one_is_not_looked_up() -> None:
    assert files.find("quickstart.yaml") == Path("quickstart.yaml")


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(UsageError, match="Did you mean 'quickstart'") as caught:
        files.find("quickstrat")
    assert "vision/lenet5" in caught.value.hint
    assert "tune/lenet5_asha" in caught.value.hint
    assert "cluster/two_nodes" in caught.value.hint


@pytest.mark.parametrize("name", READY)
def test_what_is_shown_of_a_ready_file_is_the_same_file(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files.show(name)
    text = capsys.readouterr().out
    files.show(name, as_json=True)
    assert json.loads(capsys.readouterr().out) == yaml.read(text, name).data
    loaded = load_any(files.find(name))
    job = (
        placed(loaded.job, loaded.folder)
        if isinstance(loaded, Loaded)
        else loaded.spec.model_dump(mode="json")
    )
    assert yaml.read(text, name).data == job


@pytest.mark.parametrize("kind", ["train", "script", "sweep", "cluster"])
def test_every_kind_has_its_schema(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    files.schema(kind)
    assert f'"const": "{kind}"' in capsys.readouterr().out


def test_a_cluster_is_brought_up_and_not_run(home: Path) -> None:
    with pytest.raises(UsageError, match="is a kind: cluster file") as caught:
        run(["cluster/two_nodes"])
    assert caught.value.hint == "Bring it up: dlsys cluster up cluster/two_nodes"
    with pytest.raises(UsageError, match=r"two_nodes\.yaml: is a cluster; a job is wanted here"):
        verify("cluster/two_nodes", strategies="ddp", steps=1, workers="2", address=None)
    assert not home.exists(), "nothing was started"
