"""One command and its guard: whatever the command started ends with it, or with who started the guard."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from dlsys import processes

_MARK = "DLSYS_TEST_GUARD"


class Guard:
    def __init__(self, folder: Path) -> None:
        self.log = folder / "rank-0.log"
        self._mark = str(folder)
        self._started: subprocess.Popen[bytes] | None = None

    def start(self, *command: str) -> None:
        self._started = subprocess.Popen(
            [sys.executable, "-P", "-m", "dlsys.jobs.launch.guard", str(self.log), *command],
            env={**os.environ, _MARK: self._mark},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._started.wait(timeout=30) == 0

    def say(self, text: str) -> None:
        self._started.stdin.write(text.encode())
        self._started.stdin.flush()

    def let_go(self) -> None:
        self._started.stdin.close()

    def code(self) -> str:
        return self._started.stdout.read().decode().strip()

    def family(self) -> list[psutil.Process]:
        return [p for p in processes.marked(_MARK, self._mark) if p.status() != psutil.STATUS_ZOMBIE]

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def logged(self, text: str) -> None:
        self.until(lambda: self.log.exists() and text in self.log.read_text())

    def clean(self) -> None:
        processes.kill(self.family())
        if self._started is not None:
            self._started.stdin.close()
            self._started.stdout.close()


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[Guard]:
    made = Guard(tmp_path)
    yield made
    made.clean()


# A child in a session of its own, whose parent is gone: nobody's descendant any more.
_ORPHAN = "(setsid sleep 1000 &) ; "


def test_the_exit_code_is_the_commands(guard: Guard) -> None:
    guard.start("sh", "-c", "echo said; echo wrong >&2; exit 3")
    assert guard.code() == "3"
    assert guard.log.read_text() == "said\nwrong\n"


def test_a_signal_is_a_negative_code(guard: Guard) -> None:
    guard.start("sh", "-c", "kill -SEGV $$")
    assert guard.code() == str(-signal.SIGSEGV)


def test_a_command_that_is_not_there(guard: Guard) -> None:
    guard.start("no-such-program")
    assert guard.code() == "127"
    assert "no-such-program: No such file" in guard.log.read_text()


def test_what_a_command_leaves_behind_is_ended(guard: Guard) -> None:
    guard.start("sh", "-c", _ORPHAN + "exit 0")
    assert guard.code() == "0"
    assert not guard.family()


def test_asked_to_end_every_process_may_still_work(guard: Guard) -> None:
    child = "trap 'echo child saved; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
    guard.start("sh", "-c", f'sh -c "{child}" & trap "exit 5" TERM; while :; do sleep 0.05; done')
    guard.logged("ready")
    guard.say("end 20 15\n")
    assert guard.code() == "5"
    assert "child saved" in guard.log.read_text()
    assert not guard.family()


def test_who_does_not_listen_is_killed(guard: Guard) -> None:
    guard.start("sh", "-c", _ORPHAN + "trap '' TERM; echo ready; while :; do sleep 0.05; done")
    guard.logged("ready")
    guard.say("end 0.3 15\n")
    assert guard.code() == str(-signal.SIGKILL)
    assert not guard.family()


def test_without_its_starter_everything_ends(guard: Guard) -> None:
    guard.start("sh", "-c", _ORPHAN + "trap '' TERM; echo ready; while :; do sleep 0.05; done")
    guard.logged("ready")
    guard.let_go()
    guard.until(lambda: not guard.family())


def test_a_killed_guard_takes_the_command_along(guard: Guard) -> None:
    guard.start("sleep", "1000")
    guard.until(lambda: any(p.name() == "sleep" for p in guard.family()))
    (found,) = [p for p in guard.family() if p.name() != "sleep"]
    found.kill()
    assert guard.code() == ""
    guard.until(lambda: not guard.family())
