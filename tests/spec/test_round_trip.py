"""What `dlsys show` prints is a job file again: the same job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

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


def values(node: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that the schema allows, mostly ones that people write."""
    if "$ref" in node:
        return values(SCHEMA["$defs"][node["$ref"].rsplit("/", 1)[-1]])
    for key in ("anyOf", "oneOf"):
        if key in node:
            return st.one_of([values(branch) for branch in node[key]])
    if "const" in node:
        return st.just(node["const"])
    if "enum" in node:
        return st.sampled_from(node["enum"])
    kind = node["type"]
    if kind == "object":
        properties, required = node.get("properties", {}), node.get("required", ())
        if not properties:
            return st.just({})
        return st.fixed_dictionaries(
            {key: values(properties[key]) for key in required},
            optional={key: values(field) for key, field in properties.items() if key not in required},
        )
    if kind == "array":
        fixed = [values(item) for item in node.get("prefixItems", ())]
        return st.tuples(*fixed).map(list) if fixed else st.lists(values(node["items"]), max_size=3)
    if kind == "integer":
        return st.integers(node.get("minimum", 0), min(node.get("maximum", 10**9), 10**9))
    if kind == "number":
        low, high = node.get("exclusiveMinimum", node.get("minimum", 0)), node.get("maximum")
        return st.floats(
            low,
            node.get("exclusiveMaximum", high if high is not None else 1e12),
            exclude_min="exclusiveMinimum" in node,
            exclude_max="exclusiveMaximum" in node,
        )
    if kind == "string" and "pattern" in node:
        return st.from_regex(node["pattern"], fullmatch=True)
    return {
        "boolean": st.booleans(),
        "null": st.none(),
        "string": st.sampled_from(["1e-4", "no", "a b", "0x1"]),
    }[kind]


JOBS = st.fixed_dictionaries(
    {
        "kind": st.just("train"),
        "name": values(SCHEMA["properties"]["name"]),
        "workload": st.just("lenet-5"),
        "data": st.just({"source": "digits"}) | values(SCHEMA["$defs"]["Digits"]),
        "batch_size": st.just("all") | st.integers(1, 50).map(lambda n: n * 64),
        "stop": st.just({"epochs": 2, "time": "90 minutes", "target": {"valid/accuracy": ">= 0.123456789"}}),
    },
    optional={
        key: values(field)
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
