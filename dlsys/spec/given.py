"""A job or a sweep as Python gives it: a file's path, a ready name or a mapping, and changes of it."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Mapping
from typing import Any

from dlsys.errors import Problem, SpecError, UsageError
from dlsys.spec import yaml
from dlsys.spec.load import AnyLoaded, Loaded, LoadedSweep, check_any, read
from dlsys.spec.overrides import as_given
from dlsys.spec.ready import find
from dlsys.spec.section import show

CHANGES = "changes"

Given = str | os.PathLike[str] | Mapping[str, Any]


def load_job(given: Given, changes: Mapping[str, Any] | None = None) -> Loaded:
    """Reads and checks a job's file, or a mapping as if it were one in the working folder.

    Args:
        given: a path, a ready name, or what would stand in a file.
        changes: values by dotted paths: `{"optimizer.lr": 0.1}`.

    Raises:
        SpecError: all problems of the file or the mapping and of the changes.
        UsageError: the file cannot be read, or is no job.
    """
    place, found = _load(given, changes)
    if isinstance(found, Loaded):
        return found
    raise UsageError(
        f"{place}: is of kind: {found.spec.kind}, and a job is wanted here (kind: train or rl)",
        hint="dlsys.sweep runs sweeps." if isinstance(found, LoadedSweep) else "",
    )


def load_sweep(given: Given, changes: Mapping[str, Any] | None = None) -> LoadedSweep:
    """The same of a sweep."""
    place, found = _load(given, changes)
    if isinstance(found, LoadedSweep):
        return found
    raise UsageError(
        f"{place}: is of kind: {found.spec.kind}, and a sweep is wanted here (kind: sweep)",
        hint="dlsys.run trains jobs." if isinstance(found, Loaded) else "",
    )


def _load(given: Given, changes: Mapping[str, Any] | None) -> tuple[str, AnyLoaded]:
    """A file of any kind, and what messages call it."""
    if isinstance(given, Mapping):
        place = "sweep" if given.get("kind") == "sweep" else "job"
        data = _plain_mapping(given, place)
        document, source = yaml.Document(place, data, numbered=False), yaml.dump(data)
    elif isinstance(given, str | os.PathLike):
        document, source = read(str(find(os.fspath(given))))
    else:
        raise UsageError(f"a job is a file's path, a ready name or a mapping, got {show(given)}")
    document.changes = CHANGES
    return document.file, check_any(document, source, overrides_of(changes or {}))


def overrides_of(changes: Mapping[str, Any]) -> tuple[str, ...]:
    """Changes as a command line would give them.

    Raises:
        SpecError: they are no mapping, or a value is none that a file could say.
    """
    if not isinstance(changes, Mapping):
        text = f'a mapping of dotted paths to values is wanted ({{"optimizer.lr": 0.1}}), got {show(changes)}'
        raise SpecError([Problem(CHANGES, 0, "", text)])
    plain = _plain_mapping(changes, CHANGES)
    if wrong := [key for key in plain if "=" in key]:
        raise SpecError([Problem(CHANGES, 0, "", f"{show(wrong[0])} is no dotted path: it has a =")])
    return tuple(as_given(plain))


def _plain_mapping(given: Mapping[str, Any], place: str) -> dict[str, Any]:
    wrong: list[Problem] = []
    plain: dict[str, Any] = _plain(given, (), place, wrong)
    if wrong:
        raise SpecError(wrong)
    return plain


def _plain(value: Any, path: yaml.Path, place: str, wrong: list[Problem]) -> Any:
    """A value as a file could say it; numpy's numbers, tuples and paths are taken for what they stand for."""
    said = ""
    if len(path) > yaml.MAX_DEPTH:
        said = f"nested deeper than {yaml.MAX_DEPTH} levels"
    elif isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, str)]:
            said = f"has the key {show(odd[0])}: keys are text"
        else:
            return {str(key): _plain(inner, (*path, key), place, wrong) for key, inner in value.items()}
    elif isinstance(value, list | tuple):
        return [_plain(inner, (*path, index), place, wrong) for index, inner in enumerate(value)]
    elif isinstance(value, str | os.PathLike):
        return str.__str__(os.fspath(value))
    elif value is None or isinstance(value, bool):
        return value
    elif isinstance(value, numbers.Integral):
        return int(value)
    elif isinstance(value, numbers.Real):
        if math.isfinite(value):
            return float(value)
        said = f"{value} is not a finite number"
    else:
        said = (
            f"is a {type(value).__name__}: say what a file could say, numbers, text, True, False, None, "
            "lists and mappings"
        )
    wrong.append(Problem(place, 0, yaml.dotted(path), said))
    return None
