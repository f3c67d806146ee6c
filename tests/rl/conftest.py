from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from runner import AGENT, Folder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    """A folder with a job of an agent; whatever a failed test leaves in it is ended."""
    made = Folder(tmp_path)
    (made.path / "agent.yaml").write_text(AGENT)
    yield made
    made.clean()
