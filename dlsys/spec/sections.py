"""A document as its model: what is sound of it, and what is wrong."""

from __future__ import annotations

from itertools import islice
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dlsys.errors import Problem
from dlsys.spec import yaml
from dlsys.spec.explain import explain

_Model = TypeVar("_Model", bound=BaseModel)
Wrong = list[tuple[yaml.Path, str]]


def sections(
    document: yaml.Document, model: type[_Model], *, owner: str = ""
) -> tuple[_Model | None, Wrong, set[str]]:
    """The document as its model, what is wrong with its types and keys, and which sections that spoils."""
    found: _Model | None = None
    wrong: Wrong = []
    try:
        found = model.model_validate(document.data)
    except ValidationError as error:
        wrong = list(islice(explain(error, model, owner=owner), yaml.MAX_PROBLEMS))
    broken = {str(path[0]) for path in (*(path for path, _ in wrong), *document.unread) if path}
    return found, wrong, broken


def told(document: yaml.Document, wrong: Wrong) -> list[Problem]:
    """All the document's problems, each with its line."""
    problems = list(document.problems)
    problems += [document.problem(path, text) for path, text in wrong if path not in document.unread]
    if len(wrong) >= yaml.MAX_PROBLEMS:
        text = f"has more problems; here are the first {len(problems)}"
        problems.append(Problem(document.file, 0, "", text))
    return problems


HARMLESS_JOB: dict[str, Any] = {
    "kind": "train",
    "name": "x",
    "workload": "x:y",
    "data": {"source": "digits"},
    "batch_size": 1,
    "stop": {"epochs": 1},
}
HARMLESS_AGENT: dict[str, Any] = {
    "kind": "rl",
    "name": "x",
    "environment": {"name": "x:y"},
    "algorithm": {"name": "ppo"},
    "stop": {"epochs": 1},
}
HARMLESS_SCRIPT: dict[str, Any] = {"kind": "script", "name": "x", "command": ["x"]}
HARMLESS_SWEEP: dict[str, Any] = {
    "kind": "sweep",
    "name": "x",
    "job": "x.yaml",
    "metric": "valid/loss",
    "space": {"x": {"choice": [0]}},
    "trials": 1,
}


def without(
    data: dict[str, Any], broken: set[str], model: type[_Model], harmless: dict[str, Any]
) -> _Model | None:
    """The model with broken sections replaced by harmless ones, so that rules between the sound ones
    can still be checked; None when it cannot be made."""
    kept = {key: value for key, value in data.items() if key in model.model_fields and key not in broken}
    try:
        return model.model_validate({**harmless, **kept})
    except ValidationError:
        return None
