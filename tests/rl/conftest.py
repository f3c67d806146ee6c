from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from runner import AGENT, Folder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    """A folder with a job of an agent; whatever a failed test leaves in it is ended."""
    made = Folder(tmp_path)
    (made.path / "agent.yaml").write_text(AGENT)
    yield made
    made.clean()


@pytest.fixture(scope="package")
def one_ray() -> Iterator[None]:
    """Ray in this process, for agents that tests drive themselves."""
    told = {"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}}  # environments are in these folders
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False, runtime_env=told)
    yield
    ray.shutdown()
