from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from folders import Packing
from runner import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    """A user's working directory; whatever runs in it ends with the test."""
    made = Folder(tmp_path)
    yield made
    made.clean()


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be packed, with nothing in it."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    made = tmp_path / "work"
    made.mkdir()
    return made


@pytest.fixture
def packing(tmp_path: Path) -> Packing:
    return Packing(tmp_path)
