"""Every way out of what is driven: its status, its outcome, its error."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from dlsys.errors import Interrupted, RunError, UsageError
from dlsys.jobs import driving as module
from dlsys.jobs.driving import Driving, Ending
from dlsys.jobs.interrupts import GRACE, Interrupts
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


def test_a_signal_that_came_while_compiled_code_waited(paths: RunPaths) -> None:
    """Ray's waits make an error of their own of what a signal's handler raises."""
    error = SystemError("returned a result with an exception set")
    error.__cause__ = Interrupted(exit_code=143)
    ended = drive(paths, error)
    assert (ended.status, ended.cause) == ("KILLED", "interrupted")
    assert isinstance(ended.error, Interrupted)
    assert ended.error.exit_code == 143
    other = drive(paths, SystemError("of another kind"))
    assert other.status == "FAILED"


def test_who_is_ended_by_force_says_so_first(paths: RunPaths) -> None:
    ended, said = Ending(run_id=paths.id), []
    late = "interrupted, and did not stop in time"

    def farewell() -> None:
        said.append((ended.status, str(ended.error), (read_json(paths.outcome) or {})["status"]))

    with Driving(paths, ended, Mirror(paths, ""), late=late, farewell=farewell) as driving:
        driving.interrupts.last_act()  # the process ends behind it, wherever its main thread is
        ended.status, ended.error = "FINISHED", None
    assert said == [("KILLED", late, "KILLED")]


def test_another_programs_process_is_not_ended() -> None:
    with Interrupts(may_exit=False) as interrupts:
        signal.raise_signal(signal.SIGINT)
        assert interrupts.received
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= GRACE, "but work on the way is cut off"
        assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


def test_the_callers_alarm_goes_on() -> None:
    own = signal.setitimer(signal.ITIMER_REAL, 100)  # pytest's
    try:
        with Interrupts():
            signal.raise_signal(signal.SIGINT)
        assert 90 < signal.getitimer(signal.ITIMER_REAL)[0] <= 100
    finally:
        signal.setitimer(signal.ITIMER_REAL, *own)


def test_ray_leaves_the_signals_alone() -> None:
    from ray._private import utils

    from dlsys.jobs.launch.ray_session import _quiet_ray

    before, ours = signal.getsignal(signal.SIGTERM), utils.set_sigterm_handler
    with ExitStack() as undo:
        _quiet_ray(undo)
        utils.set_sigterm_handler(lambda number, frame: None)
        assert signal.getsignal(signal.SIGTERM) == before
    assert utils.set_sigterm_handler is ours, "Ray is the caller's again"


def test_a_ray_of_ones_own_has_no_dashboard() -> None:
    from ray._private import node, utils

    from dlsys.jobs.launch.ray_session import _leave_out_what_nobody_asks

    start, ask = node.Node.start_api_server, utils.get_dashboard_dependency_error
    with ExitStack() as undo:
        _leave_out_what_nobody_asks(undo)
        assert node.Node.start_api_server is not start
        assert utils.get_dashboard_dependency_error() is not None
    assert node.Node.start_api_server is start, "Ray is the caller's again"
    assert utils.get_dashboard_dependency_error is ask
