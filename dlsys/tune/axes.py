"""A sweep's space as axes to draw on: one for each name and scale, whatever choice it lies under."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dlsys.spec.sweep import space
from dlsys.spec.sweep.entries import Choice, LogUniform, Range, Whole

Kind = Literal["choice", "log", "linear"]
# `optimizer.lr` may be drawn under several options of `optimizer`: on one scale, that is one axis.
Key = tuple[str, Kind]


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        ends: of all ranges that share it; of a choice, the first and the last option's index.
        whole: whether only whole numbers lie on it.
        options: of a choice, as text.
    """

    name: str
    kind: Kind
    ends: tuple[float, float]
    whole: bool = False
    options: tuple[str, ...] = ()

    def where(self, value: Any) -> float:
        """A value's place between 0 and 1."""
        if self.kind == "choice":
            return (self.options.index(value) + 0.5) / len(self.options)
        low, high = map(math.log, self.ends) if self.kind == "log" else self.ends
        return ((math.log(value) if self.kind == "log" else value) - low) / (high - low)


def axes(tree: space.Space) -> dict[Key, Axis]:
    """The axes of a space, in its own order."""
    found: dict[Key, Axis] = {}
    for name, entry in _walk(tree):
        key = name, _kind(entry)
        before = found.get(key)
        if isinstance(entry, Choice):
            options = (*(before.options if before else ()), *_labels(entry))
            options = tuple(dict.fromkeys(options))
            found[key] = Axis(name, "choice", (0, len(options) - 1), options=options)
        else:
            ends = (*entry.ends, *(before.ends if before else ()))
            whole = isinstance(entry, Whole) and (before is None or before.whole)
            found[key] = Axis(name, key[1], (min(ends), max(ends)), whole)
    return found


def columns(tree: space.Space) -> list[Key]:
    """The axis of each number of `space.to_cube`."""
    found: list[Key] = []
    for name, entry in _walk(tree):
        width = len(entry.choice) if isinstance(entry, Choice) else 1
        found += [(name, _kind(entry))] * width
    return found


def drawn(tree: space.Node, value: Any, name: str = "") -> Iterator[tuple[Key, Any]]:
    """What was drawn for a value of the space, by axis: a number, or an option as text.

    What lies under an option that was not taken is missing.
    """
    if isinstance(tree, Range):
        yield (name, _kind(tree)), value
    elif isinstance(tree, Choice):
        index = next(i for i, option in enumerate(tree.choice) if space.holds(option, value))
        yield (name, "choice"), _labels(tree)[index]
        yield from drawn(tree.choice[index], value, name)
    else:
        for key, part in _parts(tree):
            yield from drawn(part, value[key], _below(name, key))


def _walk(tree: space.Node, name: str = "") -> Iterator[tuple[str, Range | Choice]]:
    """Every entry with its name, in the order of the cube's numbers."""
    if isinstance(tree, Range | Choice):
        yield name, tree
    if isinstance(tree, Choice):
        for option in tree.choice:
            yield from _walk(option, name)
    for key, part in _parts(tree):
        yield from _walk(part, _below(name, key))


def _parts(tree: space.Node) -> Iterator[tuple[Any, space.Node]]:
    if isinstance(tree, Mapping):
        yield from tree.items()
    elif isinstance(tree, list):
        yield from enumerate(tree)


def _below(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)


def _kind(entry: Range | Choice) -> Kind:
    if isinstance(entry, Choice):
        return "choice"
    return "log" if isinstance(entry, LogUniform) or (isinstance(entry, Whole) and entry.log) else "linear"


def _labels(entry: Choice) -> list[str]:
    """Its options as short text, no two the same."""
    found: list[str] = []
    for index, option in enumerate(entry.choice):
        text = _label(option) or f"option {index + 1}"
        found.append(f"{text} ({index + 1})" if text in found else text)
    return found


def _label(option: Any) -> str:
    if isinstance(option, Mapping):
        plain = {key: part for key, part in option.items() if isinstance(part, str | int | float)}
        text = (
            str(plain["name"]) if "name" in plain else ", ".join(f"{k}={short(v)}" for k, v in plain.items())
        )
    elif isinstance(option, list | Range | Choice):
        text = ""
    else:
        text = short(option)
    return text if len(text) <= 24 else text[:23] + "…"


def short(value: Any) -> str:
    """A value as a file has it, of four digits."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)
