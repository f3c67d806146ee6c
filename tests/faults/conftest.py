from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from runner import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    """A user's working directory; whatever runs in it ends with the test."""
    made = Folder(tmp_path)
    yield made
    made.clean()


@pytest.fixture(scope="package", autouse=True)
def no_forks() -> Iterator[None]:
    """Faults strike interpreters, from the fixtures of a module on."""
    Folder.forks = False
    yield
    Folder.forks = True
