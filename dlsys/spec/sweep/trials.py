"""Whether every trial of a sweep has a sound job.

That is asked of the job's own rules: the job is built with both ends of every range, every option
of every choice, a few draws and every given point. What the rules say is told at the place in the
sweep that the value comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from dlsys.errors import Problem, SpecError
from dlsys.spec.metrics import metric_exists
from dlsys.spec.overrides import below
from dlsys.spec.rl.job import Job
from dlsys.spec.rules import Found
from dlsys.spec.sweep import space
from dlsys.spec.sweep.entries import Choice, Range
from dlsys.spec.sweep.sweep import Grid, Sweep
from dlsys.spec.yaml import COMMAND_LINE, MAX_PROBLEMS, Path

# Draws that are tried on the job besides the ends: rules such as divisibility bite in between.
_DRAWS = 16


@dataclass(frozen=True)
class Base:
    """The job of a sweep, with the sweep's overrides.

    Attributes:
        job: the job.
        written: it as its file and the overrides say it, no defaults filled in: those of one trial's
            optimizer are not another's.
        build: the job with a trial's settings on top; raises SpecError.
    """

    job: Job
    written: dict[str, Any]
    build: Callable[[Mapping[str, Any]], Job]


@dataclass(frozen=True)
class Facts:
    """A sweep, its job, and its space as a tree."""

    sweep: Sweep
    base: Base
    tree: space.Space


def are_sound(facts: Facts) -> Found:
    """Whether the trials' jobs keep the job's own rules."""
    sweep, tree = facts.sweep, facts.tree
    draws = [space.sample(tree, sweep.seed, index) for index in range(_DRAWS)]
    if isinstance(sweep.searcher, Grid):
        per_range = sweep.searcher.per_range
        if space.grid_size(tree, per_range) <= sweep.trials:  # another rule refuses any other
            draws = list(islice(space.grid(tree, per_range), _DRAWS))
    sound = (draw for draw in draws if not _faults(facts, draw))
    usual = next(sound, draws[0])
    told: set[str] = set()
    for path, text, about in _of_edges(facts, usual):
        told.add(about)
        yield path, text
    for draw in draws:
        for problem in _faults(facts, draw):
            if problem.path not in told:
                told.add(problem.path)
                path, text = _traced(facts, problem, draw, ())
                yield ("space", *path), text
    for index, point in enumerate(sweep.points):
        if all(key in tree and space.holds(tree[key], value) for key, value in point.items()):
            for problem in _faults(facts, space.sample(tree, sweep.seed, index) | point):
                if problem.path not in told:
                    yield ("points", index), f"makes the job wrong at {problem.path}: {problem.text}"


def _faults(facts: Facts, values: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the job of a trial."""
    try:
        job = facts.base.build(values)
    except SpecError as error:
        return error.problems
    if "workload" in facts.tree:  # each has metrics of its own
        metric = facts.sweep.metric
        wrong = metric_exists(job, ("metric",), metric, ("valid",))
        return [Problem("", 0, "metric", text) for _, text in wrong]
    return []


def _of_edges(facts: Facts, usual: Mapping[str, Any]) -> Iterator[tuple[Path, str, str]]:
    """The problems of each end and option as (path, sentence, what of the job they are about).

    One that all ends or options of an entry share is told once, at the entry.
    """
    before = {problem.path for problem in _faults(facts, usual)}
    found: dict[tuple[Path, str, str], list[Path]] = {}
    count: dict[Path, int] = {}
    for place, values in space.edges(facts.tree, usual):
        if len(found) > MAX_PROBLEMS:
            break
        entry = place[:-2]
        count[entry] = count.get(entry, 0) + 1
        for problem in _faults(facts, values):
            path, text = _traced(facts, problem, values, place)
            if problem.path in before and below(problem, str(place[0])) is None:
                continue  # not of this value's making
            told = found.setdefault((entry if path == place else path, text, problem.path), [])
            told += [place] * (path == place)
    for (path, text, about), places in found.items():
        for place in [path] if len(places) in (0, count.get(path)) else places:
            yield ("space", *place), text, about


def _traced(facts: Facts, problem: Problem, values: Mapping[str, Any], place: Path) -> tuple[Path, str]:
    """A problem of a trial's job as (its place in the space, sentence).

    Args:
        facts: the sweep's.
        problem: as the job's own rules tell it.
        values: the trial's settings.
        place: where the value comes from that was put in; empty for a draw.
    """
    for key, tree in facts.tree.items():
        inside = below(problem, key)
        if inside is not None:
            path = (key, *_place(tree, values[key], inside))
            return (place if place[:-2] == path or place == path else path), problem.text
    wrong = f"wrong at {problem.path}: {problem.text}"
    section = problem.path.partition(".")[0]
    for key in facts.tree:
        if problem.file == COMMAND_LINE and key.partition(".")[0] == section:
            return (key,), f"makes a section of the job that is {wrong}"
    return place, f"with this value, the job is {wrong}" if place else f"some draws make the job {wrong}"


def _place(tree: space.Node, value: Any, inside: Path) -> Path:
    """Where in a tree the part of a drawn value comes from that is at a path inside the value."""
    if isinstance(tree, Range):
        return ()
    if isinstance(tree, Choice):
        taken = next(i for i, option in enumerate(tree.choice) if space.holds(option, value))
        return ("choice", taken, *_place(tree.choice[taken], value, inside))
    if inside and isinstance(tree, Mapping | list):
        parts: Any = tree if isinstance(tree, Mapping) else dict(enumerate(tree))
        first, *rest = inside
        if first in parts:
            return (first, *_place(parts[first], value[first], tuple(rest)))
    return inside
