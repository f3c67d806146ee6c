"""`space:` of a sweep — what varies from trial to trial, and pure functions on it.

A space is a tree. At its top stand dotted keys of the job; below each stands an entry:

    optimizer.lr: {log_uniform: [1.0e-4, 1.0]}     between the ends, both included
    model.dropout: {uniform: [0, 0.5], step: 0.1}
    batch_size: {int: [16, 256], log: true}
    model.width: {choice: [0.5, 1.0, 2.0]}

Conditions need no syntax of their own: an option of a `choice` may be a mapping or a list with
further entries inside, to any depth. They are drawn only when their option is.

    optimizer:
      choice:
        - {name: sgd, lr: {log_uniform: [1.0e-3, 1.0]}, momentum: {uniform: [0, 0.99]}}
        - {name: adam, lr: {log_uniform: [1.0e-5, 1.0e-2]}}

What is drawn takes the place of the job's own value as a whole, so that nothing of another option,
or of the file's own section, stays behind. A mapping with one of the words above is an entry; any
other one is plain.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from dlsys.registry import did_you_mean
from dlsys.spec.explain import explain
from dlsys.spec.section import show
from dlsys.spec.sweep.entries import ENTRIES, Choice, Range
from dlsys.spec.yaml import Path

# A part of the tree: an entry, a mapping or a list of parts, or a plain value.
Node = Any
Space = Mapping[str, Node]
Found = list[tuple[Path, str]]

# Each end and option is tried on the job: a file must not keep the checker busy for minutes.
_MOST_ENTRIES = 200


def parse(data: Mapping[str, Any]) -> tuple[Space, Found]:
    """The tree of a sweep's `space:`, and everything wrong in it, by the place in it.

    The tree is of use only when nothing is wrong.
    """
    wrong: Found = []
    tree = {key: _parse(value, (key,), wrong) for key, value in data.items()}
    for key, value in data.items():
        if not (isinstance(value, dict) and ENTRIES.keys() & value.keys()):
            wrong.append(((key,), _no_entry(value)))
    if sum(1 for _ in entries(tree)) > _MOST_ENTRIES:
        wrong.insert(0, ((), f"has more than {_MOST_ENTRIES} entries"))  # before the rest is cut
    return tree, wrong


def _no_entry(value: Any) -> str:
    if isinstance(value, dict):
        near = did_you_mean(next(iter(value), ""), ENTRIES)
        got = ", ".join(map(show, value)) or "nothing"
        return f"must have one of {', '.join(ENTRIES)}, got {got}{'.' if near else ''}{near}"
    return (
        "must be a mapping such as {log_uniform: [1.0e-4, 1.0]}, "
        f"got {show(value)}; one fixed value belongs under overrides"
    )


def _parse(value: Any, path: Path, wrong: Found) -> Node:
    if isinstance(value, list):
        return [_parse(item, (*path, index), wrong) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    word = next((word for word in ENTRIES if word in value), None)
    if word is None:
        return {key: _parse(item, (*path, key), wrong) for key, item in value.items()}
    kind = ENTRIES[word]
    try:
        entry = kind.model_validate(value)
    except ValidationError as error:
        wrong += [((*path, *place), text) for place, text in explain(error, kind, owner=word)]
        return None
    if isinstance(entry, Range):
        wrong += [((*path, *place), text) for place, text in entry.broken()]
        return entry
    options = value["choice"]
    for index, option in enumerate(options):
        twin = next(i for i in range(index + 1) if same(options[i], option))
        if twin < index:
            wrong.append(((*path, word, index), f"stands twice, first as choice[{twin}]: keep one"))
    parsed = [_parse(option, (*path, word, index), wrong) for index, option in enumerate(options)]
    return entry.model_copy(update={"choice": tuple(parsed)})


def dump(tree: Node) -> Any:
    """The tree as plain data that `parse` takes, with the defaults of its entries filled in."""
    if isinstance(tree, Range):
        return tree.model_dump(mode="json")
    if isinstance(tree, Choice):
        return {"choice": [dump(option) for option in tree.choice]}
    return _over(tree, dump)


def _over(tree: Node, function: Any) -> Any:
    """A plain part of the tree with each part inside it replaced; anything else is itself."""
    if isinstance(tree, Mapping):
        return {key: function(item) for key, item in tree.items()}
    return [function(item) for item in tree] if isinstance(tree, list) else tree


def same(a: Any, b: Any) -> bool:
    """Whether two plain values mean the same in a file: 1 is 1.0, and true is neither."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def holds(tree: Node, value: Any) -> bool:
    """Whether the space can draw a value."""
    if isinstance(tree, Range):
        return tree.holds(value)
    if isinstance(tree, Choice):
        return any(holds(option, value) for option in tree.choice)
    if isinstance(tree, Mapping):
        fits = isinstance(value, Mapping) and tree.keys() == value.keys()
        return fits and all(holds(item, value[key]) for key, item in tree.items())
    if isinstance(tree, list):
        fits = isinstance(value, list | tuple) and len(tree) == len(value)
        return fits and all(map(holds, tree, value))
    return same(tree, value)


def sample(space: Space, seed: int, index: int) -> dict[str, Any]:
    """The overrides of one trial, drawn at random: a pure function of (space, seed, index).

    Each key has a stream of its own: taking a key in or out leaves what the others draw.
    """
    drawn = {}
    for key, tree in space.items():
        stream = random.Random(f"{seed}/{index}/{key}")
        drawn[key] = _take(tree, iter(stream.random, None))
    return drawn


def grid(tree: Node, per_range: int) -> Iterator[Any]:
    """Every combination: all options, and `per_range` values of each range (fewer if it has fewer).

    Values of a range are evenly spaced from end to end, on its own scale; a range that is to give
    one value gives its middle. Ask `grid_size` first: parts of the tree are made as whole lists.
    """
    if isinstance(tree, Range):
        us = [i / (per_range - 1) for i in range(per_range)] if per_range > 1 else [0.5]
        yield from dict.fromkeys(map(tree.at, us))
    elif isinstance(tree, Choice):
        for option in tree.choice:
            yield from grid(option, per_range)
    elif isinstance(tree, Mapping | list):
        parts = tree.values() if isinstance(tree, Mapping) else tree
        for values in itertools.product(*(list(grid(part, per_range)) for part in parts)):
            yield dict(zip(tree, values, strict=True)) if isinstance(tree, Mapping) else list(values)
    else:
        yield tree


def grid_size(tree: Node, per_range: int) -> int:
    """How many combinations `grid` has, without making them."""
    if isinstance(tree, Range):
        return sum(1 for _ in grid(tree, per_range))
    if isinstance(tree, Choice):
        return sum(grid_size(option, per_range) for option in tree.choice)
    if isinstance(tree, Mapping | list):
        parts = tree.values() if isinstance(tree, Mapping) else tree
        return math.prod(grid_size(part, per_range) for part in parts)
    return 1


def size(tree: Node) -> int | None:
    """How many different values the tree has; None: a continuum."""
    if isinstance(tree, Range):
        return tree.size
    if not isinstance(tree, Choice | Mapping | list):
        return 1
    inner = tree.choice if isinstance(tree, Choice) else tree
    parts = [size(part) for part in (inner.values() if isinstance(inner, Mapping) else inner)]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return sum(known) if isinstance(tree, Choice) else math.prod(known)


def values(tree: Node) -> Iterator[Any]:
    """Every value of a tree that has a `size`."""
    longest = max((entry.size or 1 for entry in _ranges(tree)), default=1)
    yield from grid(tree, longest)


def _ranges(tree: Node) -> Iterator[Range]:
    if isinstance(tree, Range):
        yield tree
    elif isinstance(tree, Choice | Mapping | list):
        inner = tree.choice if isinstance(tree, Choice) else tree
        for part in inner.values() if isinstance(inner, Mapping) else inner:
            yield from _ranges(part)


def edges(tree: Node, drawn: Any) -> Iterator[tuple[Path, Any]]:
    """Both ends of every range and every option of every choice, one at a time.

    Args:
        tree: the space, or a part of it.
        drawn: a value of it, which gives the rest of each.

    Yields:
        The place in the space, and the value of the whole tree.
    """
    if isinstance(tree, Range):
        word = next(iter(type(tree).model_fields))
        yield (word, 0), tree.at(0)
        yield (word, 1), tree.at(1)
    elif isinstance(tree, Choice):
        for index, option in enumerate(tree.choice):
            inside = list(edges(option, _take(option, itertools.repeat(0.5))))
            for place, value in inside or [((), option)]:
                yield ("choice", index, *place), value
    elif isinstance(tree, Mapping | list):
        for key, part in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
            for place, value in edges(part, drawn[key]):
                whole: Any = dict(drawn) if isinstance(tree, Mapping) else list(drawn)
                whole[key] = value
                yield (key, *place), whole


def entries(tree: Node) -> Iterator[tuple[Path, Path]]:
    """Every entry as (its place in the space, its path in the job below the dotted key)."""
    if isinstance(tree, Range | Choice):
        yield (), ()
    parts: Iterable[tuple[Any, Node]] = ()
    if isinstance(tree, Choice):
        for index, option in enumerate(tree.choice):
            yield from ((("choice", index, *place), path) for place, path in entries(option))
    elif isinstance(tree, Mapping):
        parts = tree.items()
    elif isinstance(tree, list):
        parts = enumerate(tree)
    for key, part in parts:
        yield from (((key, *place), (key, *path)) for place, path in entries(part))


def width(tree: Node) -> int:
    """The dimensions of the unit cube that the space maps to."""
    if isinstance(tree, Range):
        return 1
    if isinstance(tree, Choice):
        return len(tree.choice) + sum(map(width, tree.choice))
    parts = tree.values() if isinstance(tree, Mapping) else tree if isinstance(tree, list) else ()
    return sum(map(width, parts))


def to_cube(tree: Node, value: Any) -> list[float]:
    """The point of the unit cube of a value that the space holds, for searchers that need distances.

    A range is one number, on its own scale. A choice of k options is k numbers, of which the largest
    chooses, and then those of every option's entries: 1/2 where the option is not taken.

    Raises:
        ValueError: the space does not hold the value.
    """
    if not holds(tree, value):
        raise ValueError(f"{show(value)} is not in the space")
    return list(_numbers(tree, value))


def _numbers(tree: Node, value: Any) -> Iterator[float]:
    if isinstance(tree, Range):
        yield tree.where(value)
    elif isinstance(tree, Choice):
        chosen = next(i for i, option in enumerate(tree.choice) if holds(option, value))
        yield from (float(i == chosen) for i in range(len(tree.choice)))
        for i, option in enumerate(tree.choice):
            yield from _numbers(option, value) if i == chosen else [0.5] * width(option)
    elif isinstance(tree, Mapping | list):
        for key in tree if isinstance(tree, Mapping) else range(len(tree)):
            yield from _numbers(tree[key], value[key])


def from_cube(space: Space, point: Sequence[float]) -> dict[str, Any]:
    """The value at a point of the unit cube, of `width(space)` numbers in [0, 1]."""
    assert len(point) == width(space), "one number for each dimension"
    values: dict[str, Any] = _take(space, iter(point))
    return values


def _take(tree: Node, numbers: Iterator[float]) -> Any:
    if isinstance(tree, Range):
        return tree.at(next(numbers))
    if isinstance(tree, Choice):
        # Of numbers drawn evenly, each is as likely to be the largest.
        votes = [next(numbers) for _ in tree.choice]
        options = [_take(option, numbers) for option in tree.choice]
        return options[votes.index(max(votes))]
    return _over(tree, lambda part: _take(part, numbers))
