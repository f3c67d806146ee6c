from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from runner import Folder

JOB = """
kind: rl
name: agent
environment: {name: CartPole-v1}
algorithm: {name: ppo, batch_size: 400, passes: 2}
resources: {env_runners: 2}
stop: {epochs: 6}
evaluate: 3 epochs
episodes: {valid: 5, test: 5}
checkpoint: {every: 2 epochs}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    """A folder with a job of an agent; whatever a failed test leaves in it is ended."""
    made = Folder(tmp_path)
    (made.path / "agent.yaml").write_text(JOB)
    yield made
    made.clean()
