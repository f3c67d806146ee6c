"""The JSON Schema is valid, agrees with the reader, and explains every field."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from dlsys.spec import yaml
from dlsys.spec.schema import schema

ROOT = Path(__file__).parents[2]
SCHEMA = schema()
VALIDATOR = Draft202012Validator(SCHEMA)
GOOD: dict[str, Any] = {
    "kind": "train",
    "name": "good",
    "workload": "lenet-5",
    "data": {"source": "digits"},
    "batch_size": 64,
    "stop": {"epochs": 1},
}


def test_is_a_valid_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == Draft202012Validator.META_SCHEMA["$id"]


@pytest.mark.parametrize("path", sorted(ROOT.glob("jobs/**/*.yaml")), ids=lambda path: path.stem)
def test_ready_jobs_are_valid(path: Path) -> None:
    data = yaml.read(path.read_bytes(), path.name).data
    if data["kind"] == "train":
        VALIDATOR.validate(data)


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": "all"},
        {"batch_size": 64, "model": {"width": 0.5}},
        {"workload": "resnet", "model": {"preset": "20", "width": 8}},
        {"workload": "resnet", "model": {"preset": 20}},
        {"workload": "my.net:Net", "model": {"anything": [1, {"a": None}]}},
        {"optimizer": {"name": "minibatch-sgd", "momentum": 0.9}},
        {"regularize": [{"name": "l1", "strength": 0.1}]},
        {"strategy": {"name": "ddp"}},
        {"strategy": None},
        {"expect": {"valid/accuracy": ">= 0.9"}},
        {"stop": {"time": "90 s", "steps": None}},
    ],
)
def test_takes_what_is_good(change: dict[str, Any]) -> None:
    VALIDATOR.validate(GOOD | change)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "trian"},
        {"name": "Upper"},
        {"name": "a..b"},
        {"workload": "lenet5"},
        {"model": {"widht": 1}},
        {"model": {"width": "1"}},
        {"model": {"preset": "20"}},
        {"workload": "resnet", "model": {"preset": "21"}},
        {"data": {"source": "digit"}},
        {"batch_size": 0},
        {"batch_size": 1.5},
        {"batch_size": "64"},
        {"optimizer": "adam"},
        {"optimizer": {"lr": 0.1}},
        {"optimizer": {"name": "adam", "momentum": 0.9}},
        {"optimizer": {"name": "adam", "betas": [0.9]}},
        {"regularize": {"name": "l1", "strength": 1}},
        {"evaluate": "1 parsec"},
        {"evaluate": "0 steps"},
        {"stop": {"time": "soon"}},
        {"stop": {"time": 0}},
        {"expect": {"valid/accuracy": 0.9}},
        {"seed": -1},
        {"seed": 2**32},
        {"unknown": 1},
    ],
)
def test_refuses_what_the_reader_refuses(change: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(GOOD | change)


@pytest.mark.parametrize("key", ["kind", "name", "workload", "data", "batch_size", "stop"])
def test_knows_what_is_required(key: str) -> None:
    assert not VALIDATOR.is_valid({k: v for k, v in GOOD.items() if k != key})


def test_defaults_are_written_as_a_file_would() -> None:
    properties = SCHEMA["properties"]
    assert properties["evaluate"]["default"] == "1 epoch"
    assert properties["checkpoint"]["default"] == {
        "every": "1 epoch",
        "keep": 2,
        "best": None,
        "changed_data": "refuse",
    }
    assert properties["optimizer"]["default"]["name"] == "sgd"
    assert SCHEMA["$defs"]["Checkpoint"]["properties"]["every"]["default"] == "1 epoch"


def test_defaults_are_valid_themselves() -> None:
    defaults = {key: field["default"] for key, field in SCHEMA["properties"].items() if "default" in field}
    assert {"schedule", "failure", "tracking", "seed"} <= defaults.keys()
    VALIDATOR.validate(GOOD | defaults)


def _objects(node: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if node.get("type") == "object" and "properties" in node:
            yield place, node
        for key, value in node.items():
            yield from _objects(value, f"{place}/{key}")


OBJECTS = dict(_objects(SCHEMA, ""))


@pytest.mark.parametrize("place", OBJECTS)
def test_every_section_is_closed(place: str) -> None:
    if place in ("/$defs/OwnSource", "/$defs/OwnLoss", "/$defs/OwnTransform"):
        assert OBJECTS[place]["additionalProperties"] is True, "other keys are the user's function's"
    else:
        assert OBJECTS[place]["additionalProperties"] is False


@pytest.mark.parametrize(
    "place",
    # Options of workloads are the catalogue's: it has its own tests.
    [place for place in OBJECTS if not place.startswith("/$defs/") or place.split("/")[2][0].isupper()],
)
def test_every_section_and_field_is_described_in_a_sentence(place: str) -> None:
    section = OBJECTS[place]
    for name, field in [("", section), *section["properties"].items()]:
        text = field.get("description", "")
        assert text.endswith((".", ").", "`.")), f"{place} {name}: {text!r}"
        assert len(text.split()) >= 2, f"{place} {name}: {text!r}"
