from __future__ import annotations

from pathlib import Path

import pytest

from dlsys.spec import load
from dlsys.spec.catalogue import WORKLOADS

JOBS = Path(__file__).parents[2] / "jobs"
FILES = sorted(
    path.relative_to(JOBS).as_posix() for path in JOBS.rglob("*.yaml") if "kind: train" in path.read_text()
)


@pytest.mark.parametrize("file", FILES)
def test_a_workloads_job_is_sound_and_expects_something(file: str) -> None:
    path = JOBS / file
    assert path.read_text().startswith("# ")
    job = load(path).job
    assert job.workload in WORKLOADS
    assert any(name.startswith("valid/") for name in job.expect)


def test_every_workload_has_a_job() -> None:
    named = {name for name in WORKLOADS.names() if not WORKLOADS.load(name).preset}
    assert {load(JOBS / file).job.workload for file in FILES} >= named
