"""What `dlsys show` prints is a job file again: the same job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from spec_values import values

from dlsys.errors import SpecError
from dlsys.spec import TrainJob, load, yaml
from dlsys.spec.load import check
from dlsys.spec.schema import schema

ROOT = Path(__file__).parents[2]
SCHEMA = schema()


def again(job: TrainJob) -> TrainJob:
    return check(yaml.read(yaml.dump(job.model_dump(mode="json")), "again.yaml"))


@pytest.mark.parametrize("path", sorted(ROOT.glob("jobs/**/*.yaml")), ids=lambda path: path.stem)
def test_ready_jobs(path: Path) -> None:
    if b"kind: train" in path.read_bytes():
        job = load(path).job
        assert again(job) == job


JOBS = st.fixed_dictionaries(
    {
        "kind": st.just("train"),
        "name": values(SCHEMA["properties"]["name"], SCHEMA),
        "workload": st.just("lenet-5"),
        "data": st.just({"source": "digits"}) | values(SCHEMA["$defs"]["Digits"], SCHEMA),
        "batch_size": st.just("all") | st.integers(1, 50).map(lambda n: n * 64),
        "stop": st.just({"epochs": 2, "time": "90 minutes", "target": {"valid/accuracy": ">= 0.123456789"}}),
    },
    optional={
        key: values(field, SCHEMA)
        for key, field in SCHEMA["properties"].items()
        if key in {"optimizer", "schedule", "regularize", "precision", "gradient", "evaluate", "failure"}
        or key in {"seed", "tracking"}
    }
    | {
        "model": st.fixed_dictionaries({}, optional={"width": st.floats(0.1, 8)}),
        "resources": st.fixed_dictionaries({"workers": st.sampled_from([1, 2, 4]), "gpus": st.floats(0, 2)}),
        "checkpoint": st.just({"every": "200 steps", "best": "valid/accuracy"}),
    },
)


@settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(JOBS)
def test_generated_jobs(data: dict[str, Any]) -> None:
    try:
        job = check(yaml.read(yaml.dump(data), "job.yaml"))
    except SpecError:
        assume(False)  # a rule between fields
        raise
    assert again(job) == job
    assert again(job).model_dump(mode="json") == job.model_dump(mode="json")
