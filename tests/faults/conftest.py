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
