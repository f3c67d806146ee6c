"""From a file and dotted overrides to a checked `TrainJob`, or to every problem at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from dlsys.errors import Problem, SpecError, UsageError
from dlsys.registry import did_you_mean
from dlsys.spec import rules, yaml
from dlsys.spec.explain import explain
from dlsys.spec.job import TrainJob
from dlsys.spec.section import show

KINDS: dict[str, type[BaseModel]] = {"train": TrainJob}


@dataclass(frozen=True)
class Loaded:
    """A checked file.

    Attributes:
        job: the job, all defaults filled in.
        source: the file's own text.
        path: the file, absolute.
        overrides: what the command line changed, as given.
    """

    job: TrainJob
    source: str
    path: Path
    overrides: tuple[str, ...] = ()


def load(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Loaded:
    """Reads and checks a job file.

    Args:
        path: the file.
        overrides: `dotted.path=value`; the value is read as YAML.

    Raises:
        SpecError: all problems of the file and of the overrides.
        UsageError: the file cannot be read.
    """
    shown = os.fspath(path)
    try:
        with open(path, "rb") as file:
            text = file.read(yaml.MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path that no file can have
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{shown}: cannot be read: {reason}") from error
    document = yaml.read(text, shown)
    apply_overrides(document, overrides)
    return Loaded(
        job=check(document),
        source=text.decode("utf-8-sig"),
        path=Path(path).resolve(),
        overrides=tuple(overrides),
    )


def apply_overrides(document: yaml.Document, overrides: Iterable[str]) -> None:
    """Sets dotted paths in the document; a bad one becomes a problem of the document.

    A number in a path is an index into a list that is there: `regularize.0.strength=1e-3`.
    """
    for text in overrides:
        key, equals, value = text.partition("=")
        key = key.strip()
        parts = key.split(".")
        try:
            plain = key.isprintable() and len(parts) <= yaml.MAX_DEPTH
            if not (equals and plain and all(parts)):
                raise _BadOverride("", f"{show(text)} is not an override: say dotted.path=value")
            _set(document, parts, _value(key, value))
        except _BadOverride as error:
            document.problems.append(Problem(yaml.COMMAND_LINE, 0, error.path, str(error)))


class _BadOverride(Exception):
    def __init__(self, path: str, text: str) -> None:
        super().__init__(text)
        self.path = path


def _value(key: str, text: str) -> Any:
    if text.startswith((">", "|")):
        return text  # a condition; YAML would read a block of lines, which no argument is
    try:
        parsed = yaml.read(text or "null", yaml.COMMAND_LINE)
    except SpecError as error:
        raise _BadOverride(yaml.dotted((key,)), f"{show(text)}: {error.problems[0].text}") from error
    if parsed.problems:
        raise _BadOverride(yaml.dotted((key,)), parsed.problems[0].text)
    return parsed.data


def _set(document: yaml.Document, parts: Sequence[str], value: Any) -> None:
    if not isinstance(document.data, dict):
        return  # check() reports that the file is no mapping
    node: Any = document.data
    path: yaml.Path = ()
    for index, part in enumerate(parts):
        key = _key_in(node, part, path)
        path = (*path, key)
        if index == len(parts) - 1:
            node[key] = value
        elif isinstance(node, list) or node.get(key) is not None:
            node = node[key]
        else:
            node[key] = {}
            node = node[key]
            document.lines[path] = 0
    for known in [known for known in document.lines if known[: len(path)] == path]:
        del document.lines[known]
    document.lines[path] = 0
    document.unread = {unread for unread in document.unread if unread[: len(path)] != path}


def _key_in(node: Any, part: str, path: yaml.Path) -> str | int:
    if isinstance(node, dict):
        return part
    place = yaml.dotted(path)
    if not isinstance(node, list):
        raise _BadOverride(place, f"is {show(node)} and has no {show(part)} inside")
    if not (part.isascii() and part.isdecimal() and len(part) < 6 and int(part) < len(node)):
        raise _BadOverride(place, f"is a list of {len(node)}: {show(part)} is no index (from 0) into it")
    return int(part)


def check(document: yaml.Document) -> TrainJob:
    """Validates a document: types, unknown keys, names, and the rules between fields.

    Raises:
        SpecError: all problems.
    """
    data = document.data
    problems = list(document.problems)
    if not isinstance(data, dict):
        if () not in document.unread:
            text = f"a job file is a mapping of keys to values, not {show(data)}"
            problems.append(document.problem((), text))
        raise SpecError(problems)
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        if ("kind",) not in document.unread:
            problems.append(document.problem(("kind",), _bad_kind(data)))
        raise SpecError(problems)

    wrong: list[tuple[yaml.Path, str]] = []
    job: TrainJob | None = None
    try:
        job = TrainJob.model_validate(data)
    except ValidationError as error:
        wrong = list(islice(explain(error, TrainJob), yaml.MAX_PROBLEMS))
    broken = {str(path[0]) for path in (*(path for path, _ in wrong), *document.unread) if path}
    wrong += islice(rules.check(job or _without(data, broken), broken), yaml.MAX_PROBLEMS)
    problems += [document.problem(path, text) for path, text in wrong if path not in document.unread]
    if len(wrong) >= yaml.MAX_PROBLEMS:
        text = f"has more problems; here are the first {len(problems)}"
        problems.append(Problem(document.file, 0, "", text))
    if problems or job is None:
        raise SpecError(problems)
    return rules.resolve(job)


def _bad_kind(data: dict[str, Any]) -> str:
    known = " or ".join(map(show, KINDS))
    if "kind" not in data:
        return f"is required and missing: {known}"
    near = did_you_mean(data["kind"], KINDS) if isinstance(data["kind"], str) else ""
    return f"must be {known}, got {show(data['kind'])}{'.' if near else ''}{near}"


def _without(data: dict[str, Any], broken: set[str]) -> TrainJob | None:
    """The job with its broken sections replaced by harmless ones, so that rules between the
    sound ones can still be checked; None when it cannot be made."""
    harmless: dict[str, Any] = {
        "kind": "train",
        "name": "x",
        "workload": "x:y",
        "data": {"source": "digits"},
        "batch_size": 1,
        "stop": {"epochs": 1},
    }
    known = TrainJob.model_fields
    kept = {key: value for key, value in data.items() if key in known and key not in broken}
    try:
        return TrainJob.model_validate({**harmless, **kept})
    except ValidationError:
        return None
