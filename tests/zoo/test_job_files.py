from __future__ import annotations

from pathlib import Path

import pytest

from dlsys.registry import WORKLOADS
from dlsys.spec import load

JOBS = Path(__file__).parents[2] / "jobs"
FILES = [
    "quickstart.yaml",
    "foundation/softmax_regression.yaml",
    "foundation/mixture_of_experts.yaml",
    "vision/lenet5.yaml",
    "vision/resnet.yaml",
    "language/char_rnn.yaml",
    "recommend/dlrm.yaml",
    "generate/gan.yaml",
]


@pytest.mark.parametrize("file", FILES)
def test_a_workloads_job_is_sound_and_expects_something(file: str) -> None:
    path = JOBS / file
    assert path.read_text().startswith("# ")
    job = load(path).job
    assert job.workload in WORKLOADS
    assert any(name.startswith("valid/") for name in job.expect)


def test_every_workload_has_a_job() -> None:
    assert {load(JOBS / file).job.workload for file in FILES} == set(WORKLOADS.names())
