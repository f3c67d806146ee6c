"""The ready files: found by name from anywhere, and all of them sound."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlsys.cli import files
from dlsys.errors import UsageError
from dlsys.spec import LoadedSweep, load_any

ROOT = Path(__file__).parents[2]
FILES = sorted([*ROOT.glob("jobs/**/*.yaml"), *ROOT.glob("tune/**/*.yaml")])
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
    loaded = [load_any(path) for path in FILES]
    names = [file.sweep.name if isinstance(file, LoadedSweep) else file.job.name for file in loaded]
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
