"""Rules between the sections of a file: how they are kept, and those that every job has.

Each rule names the sections it reads, so that it is left out when one of those is already known
to be broken; every other problem of a file is still found in the same pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar

from dlsys.spec.section import show
from dlsys.spec.yaml import Path

Found = Iterator[tuple[Path, str]]
_Facts = TypeVar("_Facts")


class Rules(Generic[_Facts]):
    """The rules of one kind of file: functions from what is known of it to what is wrong with that."""

    def __init__(self) -> None:
        self._rules: list[tuple[frozenset[str], Callable[[_Facts], Found]]] = []

    def on(self, *sections: str) -> Callable[[Callable[[_Facts], Found]], Callable[[_Facts], Found]]:
        """Adds a rule that reads these sections."""

        def add(function: Callable[[_Facts], Found]) -> Callable[[_Facts], Found]:
            self._rules.append((frozenset(sections), function))
            return function

        return add

    def check(self, facts: _Facts | None, broken: set[str]) -> Found:
        """Every broken rule whose sections are sound, as (path, sentence); none where nothing is known."""
        if facts is None:
            return
        for sections, function in self._rules:
            if not sections & broken:
                yield from function(facts)


class _Stop(Protocol):
    @property
    def epochs(self) -> int | None: ...
    @property
    def steps(self) -> int | None: ...
    @property
    def time(self) -> float | None: ...
    @property
    def target(self) -> Mapping[str, Any]: ...


class _Store(Protocol):
    @property
    def experiment(self) -> str: ...


def stop_is_given(stop: _Stop) -> Found:
    """Whether a run ends for certain."""
    if not (stop.epochs or stop.steps or stop.time or stop.target):
        yield ("stop",), "says no end: give epochs, steps, time or target"
    elif stop.target and not (stop.epochs or stop.steps or stop.time):
        yield ("stop",), "a target may never be met: give epochs, steps or time besides"


class _Init(Protocol):
    run: str
    file: str


def init_is_one(init: _Init | None) -> Found:
    """Whether a run that begins with weights says where they are."""
    if init and bool(init.run) == bool(init.file):
        yield ("init",), "begins with a run or with a file: say one of them, {run: ID} or {file: PATH}"


def experiment_is_plain(tracking: _Store) -> Found:
    """Whether MLflow takes the experiment's name."""
    name = tracking.experiment
    if not re.fullmatch(r"[\w][\w .:@/+-]{0,199}", name) or ".." in name:
        yield (
            ("tracking", "experiment"),
            f"{show(name)}: up to 200 letters, digits, spaces and . _ - : @ / + only, without '..'",
        )
