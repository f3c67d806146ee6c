"""What the watchdog takes for a hang: a silent thread that waits, not one that is at work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dlsys.train import watchdog
from dlsys.train.watchdog import Watchdog


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second stands for a minute and a half."""
    monkeypatch.setattr(watchdog, "_AT_LEAST", 0.6)
    monkeypatch.setattr(watchdog, "_TIMES_LONGEST", 2.0)
    monkeypatch.setattr(watchdog, "_FIRST", 2.0)


def wait(seconds: float) -> None:
    time.sleep(seconds)


def compute(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def told(
    folder: Path, step: int, what: Callable[[float], None], seconds: float, limit: float | None
) -> list[str]:
    """What a watchdog says of one that makes `step` steps and then does something without a beat."""
    found: list[str] = []
    with Watchdog(
        folder, 0, 1, limit=limit, note=found.append, on_hang=lambda text: found.append(text)
    ) as dog:
        for number in range(1, step + 1):
            dog.beat(number)
        what(seconds)
    return found


def test_a_later_step_that_waits_is_a_hang(tmp_path: Path) -> None:
    assert "no progress" in told(tmp_path, 3, wait, 1.5, None)[-1]


def test_the_first_step_has_more_time_and_is_told_of(tmp_path: Path) -> None:
    (note,) = told(tmp_path, 1, wait, 1.3, None)
    assert note.startswith("step 1 has taken")
    assert "after 2 s it is taken for a hang (failure.hang_after)" in note
    assert "no progress" in told(tmp_path, 1, wait, 3.5, None)[-1]


def test_a_step_that_computes_is_at_work(tmp_path: Path) -> None:
    found = told(tmp_path, 3, compute, 1.5, None)
    assert not [text for text in found if "no progress" in text]


def test_but_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "_TIMES_BUSY", 2.0)
    assert "no progress" in told(tmp_path, 3, compute, 3.0, None)[-1]


def test_who_waits_for_one_that_computes_waits_on(tmp_path: Path) -> None:
    """Rank 0 is in a collective that rank 1 has not come to yet."""
    stop = threading.Event()

    def busy() -> None:
        while not stop.wait(0.05):
            (tmp_path / "busy-1").touch()

    other = threading.Thread(target=busy)
    other.start()
    try:
        found = told(tmp_path, 3, wait, 1.5, None)
    finally:
        stop.set()
        other.join()
    assert not [text for text in found if "no progress" in text]


def test_a_limit_that_was_given_holds_for_work_too(tmp_path: Path) -> None:
    assert "no progress" in told(tmp_path, 3, compute, 2.0, 0.8)[-1]


def test_what_is_as_slow_as_the_first_step_is_no_hang(tmp_path: Path) -> None:
    """An agent's iterations are all alike."""
    found: list[str] = []
    with Watchdog(tmp_path, 0, 1, note=found.append, on_hang=found.append) as dog:
        dog.beat(0)
        for step in (2, 4, 6):
            wait(1.0)
            dog.beat(step)
    assert not [text for text in found if "no progress" in text]
