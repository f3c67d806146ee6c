"""The errors' tree, exit codes and messages, and that they survive a process border."""

from __future__ import annotations

import inspect
import pickle
import re
from collections.abc import Iterator

import pytest

from dlsys import errors
from dlsys.errors import DlsysError, Interrupted, Problem, SpecError, WorkloadError


def family(error: type[DlsysError] = DlsysError) -> Iterator[type[DlsysError]]:
    yield error
    for child in error.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from family(child)


EXAMPLES = [
    *(
        error("what", hint="mend")
        for error in family()
        if error not in (SpecError, Interrupted, WorkloadError)
    ),
    SpecError([Problem("b.yaml", 2, "x", "is bad"), Problem("a.yaml", 1, "", "is worse")]),
    WorkloadError("what", traceback="File …", hint="mend"),
    Interrupted("stopped", exit_code=143),
]


def test_every_kind_has_an_example() -> None:
    assert {type(example) for example in EXAMPLES} == set(family())


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_pickling_keeps_everything(error: DlsysError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
    assert copy.exit_code == error.exit_code


def test_the_tree_in_the_docstring_is_the_classes() -> None:
    assert errors.__doc__ is not None
    drawn = dict(re.findall(r"^[\s│├└─]*(\w+)\s{2,}(\d+)\s", errors.__doc__, re.MULTILINE))
    classes = {error.__name__: str(error.exit_code) for error in family() if error is not DlsysError}
    assert drawn == classes


def test_the_trees_indents_are_the_inheritance() -> None:
    assert errors.__doc__ is not None
    parents: list[tuple[int, str]] = []
    checked = 0
    for line in errors.__doc__.splitlines():
        if not (found := re.match(r"([\s│├└─]*)([A-Z]\w+)\s{2,}", line)):
            continue
        indent, name = len(found[1]), found[2]
        parents = [(deep, parent) for deep, parent in parents if deep < indent]
        if parents:
            assert getattr(errors, name).__base__.__name__ == parents[-1][1]
            checked += 1
        parents.append((indent, name))
    assert checked == len(list(family())) - 1


def test_exit_codes_are_the_documented_ones() -> None:
    assert {error.exit_code for error in family()} == {1, 2, 130}
    assert SpecError([Problem("f", 1, "", "x")]).exit_code == 2
    assert Interrupted(exit_code=143).exit_code == 143


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("jobs/x.yaml", 14, "strategy.name", "unknown"), "jobs/x.yaml:14: strategy.name: unknown"),
        (Problem("jobs/x.yaml", 3, "", "not YAML"), "jobs/x.yaml:3: not YAML"),
        (Problem("jobs/x.yaml", 0, "", "is empty"), "jobs/x.yaml: is empty"),
        (Problem("command line", 0, "seed", "is bad"), "command line: seed: is bad"),
    ],
)
def test_a_problem_names_its_place(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_problems_come_in_the_order_of_lines() -> None:
    error = SpecError([Problem("f", line, "x", "bad") for line in (10, 9, 2)])
    assert [problem.line for problem in error.problems] == [2, 9, 10]
    assert str(error) == "f:2: x: bad\nf:9: x: bad\nf:10: x: bad"


def test_public_names() -> None:
    public = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert public == {error.__name__ for error in family()} | {"Problem"}
