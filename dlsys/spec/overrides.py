"""Dotted overrides: values that are set in a document by their paths."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from dlsys.errors import Problem, SpecError
from dlsys.spec import yaml
from dlsys.spec.rl.job import Job
from dlsys.spec.rules import Found
from dlsys.spec.section import show

_LINE_ENDS = {number: f"\\u{number:04x}" for number in (0x85, 0x2028, 0x2029)}


def apply_overrides(document: yaml.Document, overrides: Iterable[str]) -> None:
    """Sets dotted paths in the document; a bad one becomes a problem of the document.

    A number in a path is an index into a list that is there: `regularize.0.strength=1e-3`. In a
    sweep's `space` and `overrides`, what follows is one key: `space.optimizer.lr={uniform: [0, 1]}`.
    """
    for text in overrides:
        key, equals, value = text.partition("=")
        key = key.strip()
        parts = key.split(".")
        try:
            plain = key.isprintable() and len(parts) <= yaml.MAX_DEPTH
            if not (equals and plain and all(parts)):
                raise _BadOverride("", f"{show(text)} is not an override: say dotted.path=value")
            if of_sweep(document) and parts[0] in ("space", "overrides"):
                parts[1:] = [".".join(parts[1:])] if parts[1:] else []
            _set(document, parts, _value(key, value))
        except _BadOverride as error:
            document.problems.append(Problem(document.changes, 0, error.path, str(error)))


def of_sweep(document: yaml.Document) -> bool:
    return isinstance(document.data, dict) and document.data.get("kind") == "sweep"


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


def changed(document: yaml.Document, values: Mapping[str, Any]) -> yaml.Document:
    """A copy of a document with values set by their dotted keys; a bad key becomes a problem of it."""
    data, lines = copy.deepcopy(document.data), dict(document.lines)
    result = yaml.Document(document.file, data, lines)
    for key, value in values.items():
        parts = key.split(".")
        try:
            if not all(parts):
                raise _BadOverride("", f"{show(key)} is no dotted key")
            _set(result, parts, copy.deepcopy(value))
        except _BadOverride as error:
            text = f"{error.path} {error}".strip()
            result.problems.append(Problem(yaml.COMMAND_LINE, 0, key, text))
    return result


def as_given(values: Mapping[str, Any]) -> Iterator[str]:
    """Values by dotted keys as a command line would give them; JSON is YAML too, but for what JSON makes two
    escapes of, and for what YAML takes as the end of a line."""
    texts = ((key, json.dumps(value, ensure_ascii=False)) for key, value in values.items())
    return (f"{key}={text.translate(_LINE_ENDS)}" for key, text in texts)


def below(problem: Problem, key: str) -> yaml.Path | None:
    """The path of a problem below a dotted key that was set; None if it is not of its making.

    It is () also where the key made a section of which nothing is known.
    """
    found = re.finditer(r"\[(\d+)\]|([^.\[\]]+)", problem.path)
    parts: yaml.Path = tuple(int(part[1]) if part[1] else part[2] for part in found)
    above = key.split(".")
    if problem.file != yaml.COMMAND_LINE or not parts:
        return None
    if problem.path == key:
        return ()
    met = all(str(part) == name for part, name in zip(parts, above, strict=False))
    return parts[len(above) :] if met else None


def traced(problems: Iterable[Problem], places: Mapping[str, yaml.Path], above: yaml.Path) -> Found:
    """Problems of a job that was changed, as (path in the file with the changes, sentence).

    Args:
        problems: as the job's own rules tell them.
        places: where each changed key stands in that file.
        above: where all of them do.
    """
    for problem in problems:
        for key, place in places.items():
            inside = below(problem, key)
            if inside is not None:
                yield (*place, *inside), problem.text
                break
        else:
            yield above, f"with these, the job is wrong at {problem.path}: {problem.text}"


def without_effect(job: Job, keys: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The changed keys that change nothing, each with the reason."""
    for key in keys:
        section, _, field = key.partition(".")
        if section == "optimizer" and field in job.paced:
            yield key, f"has no effect, for the schedule sets {field} itself: say schedule.{job.paced[field]}"
