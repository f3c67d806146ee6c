"""Every way out of what is driven: its status, its outcome, its error."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from dlsys.errors import Interrupted, RunError, UsageError
from dlsys.jobs import driving as module
from dlsys.jobs.driving import Driving, Ending
from dlsys.jobs.mirror.node import Mirror
from dlsys.paths import RunPaths, read_json


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunPaths:
    # What it delivers has tests of its own.
    monkeypatch.setattr(module, "start_writer", lambda paths: subprocess.Popen(["sleep", "0.1"]))
    return RunPaths.create("run-20260101-120000-abcd", under=tmp_path)


def drive(paths: RunPaths, error: BaseException | None = None) -> Ending:
    ended = Ending(run_id=paths.id)
    with Driving(paths, ended, Mirror(paths, "")):
        if error is not None:
            raise error
        ended.status = "FINISHED"
    return ended


@pytest.mark.parametrize(
    ("error", "status", "cause"),
    [
        (None, "FINISHED", ""),
        (RunError("it\n  failed"), "FAILED", "it failed"),
        (KeyError(), "FAILED", "KeyError"),
        (Interrupted(), "KILLED", "interrupted"),
        (KeyboardInterrupt(), "KILLED", "interrupted"),
    ],
)
def test_the_outcome_is_written_and_the_error_kept(
    error: BaseException | None, status: str, cause: str, paths: RunPaths
) -> None:
    ended = drive(paths, error)
    assert (ended.status, ended.cause, ended.delivered) == (status, cause, True)
    assert read_json(paths.outcome) == {"status": status, "cause": cause, "attempts": 1, "metrics": {}}
    assert ended.error is error or isinstance(ended.error, Interrupted)
    assert not paths.ballast.exists()


def test_a_part_with_signals_of_its_own_tells_which_it_was(paths: RunPaths) -> None:
    ended = drive(paths, Interrupted(exit_code=143))
    assert isinstance(ended.error, Interrupted)
    assert ended.error.exit_code == 143


def test_a_signal_is_told_to_workers_and_ends_it(paths: RunPaths) -> None:
    ended = Ending(run_id=paths.id)
    with Driving(paths, ended, Mirror(paths, "")) as driving:
        driving.attend()
        assert not (paths.root / "stop").exists()
        os.kill(os.getpid(), signal.SIGTERM)
        driving.attend()
        assert (paths.root / "stop").exists()
        driving.check()
        ended.status = "FINISHED"
    assert ended.status == "KILLED"
    assert isinstance(ended.error, Interrupted)
    assert ended.error.exit_code == 143


def test_it_concludes_between_the_verdict_and_the_outcome(paths: RunPaths) -> None:
    ended = Ending(run_id=paths.id)
    seen: list[tuple[str, bool]] = []
    with Driving(paths, ended, Mirror(paths, "")) as driving:
        driving.conclude = lambda: seen.append((ended.status, paths.outcome.exists()))
        raise RunError("no")
    assert seen == [("FAILED", False)]


def test_there_is_one_driver(paths: RunPaths) -> None:
    with Driving(paths, Ending(run_id=paths.id), Mirror(paths, "")):
        with pytest.raises(UsageError, match="is being run by process"):
            drive(paths)
        (paths.root / "stop").touch()
    assert read_json(paths.outcome) is not None
