"""Ray's sockets have short paths, whatever TMPDIR is."""

from __future__ import annotations

import os

import pytest

from dlsys.errors import RunError
from dlsys.jobs.launch.ray_session import shorten_tmpdir

# The largest process id.
SOCKET = "/ray/session_2026-11-30_05-57-23_880877_4194304/sockets/plasma_store"
LONGEST = "/" + "a" * (107 - len(SOCKET) - 1)


@pytest.fixture(autouse=True)
def _no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/t")
    monkeypatch.delenv("RAY_TMPDIR", raising=False)


@pytest.mark.parametrize(
    ("told", "left"),
    [("/t/short", "/t/short"), (LONGEST, LONGEST), (LONGEST + "a", "/tmp"), ("/" + 20 * "ä", "/tmp")],
)
def test_a_tmpdir_too_long_for_a_socket_is_left_for_a_short_one(
    told: str, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", told)
    shorten_tmpdir()
    assert os.environ["TMPDIR"] == left
    assert len(os.fsencode(left + SOCKET)) <= 107


def test_a_long_folder_for_ray_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", LONGEST)
    shorten_tmpdir()
    monkeypatch.setenv("RAY_TMPDIR", LONGEST + "a")
    with pytest.raises(RunError, match=r"RAY_TMPDIR is /aaa.* at most \d+ bytes"):
        shorten_tmpdir()
