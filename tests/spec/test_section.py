"""The small types of the sections."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from dlsys.spec.section import Bound, Condition, Every, EveryOrTime, Interval, Name, Seconds, Section, show


class Plain(Section):
    """A section whose author wrote plain Python types, as workloads' options may."""

    whole: int = 0
    number: float = 0.0
    flag: bool = False
    text: str = ""
    pairs: tuple[tuple[int, int], ...] = ()


@pytest.mark.parametrize(
    "value",
    [
        {"whole": "1"},
        {"whole": True},
        {"whole": 1.5},
        {"number": "1"},
        {"number": False},
        {"number": math.nan},
        {"number": math.inf},
        {"flag": 1},
        {"flag": "true"},
        {"text": 1},
        {"text": None},
        {"pairs": [[1]]},
        {"pairs": [1, 2]},
        {"pairs": [["1", 2]]},
        {"other": 1},
    ],
)
def test_nothing_is_converted_silently(value: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Plain.model_validate(value)


def test_what_yaml_writes_differently_is_taken() -> None:
    found = Plain.model_validate({"whole": 1e4, "number": 2, "pairs": [[1, 2], [3.0, 4]]})
    assert (found.whole, found.number, found.pairs) == (10_000, 2.0, ((1, 2), (3, 4)))
    assert type(found.whole) is int
    assert type(found.number) is float


def test_sections_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Plain().whole = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("1 epoch", Interval(1, "epoch")),
        ("2 epochs", Interval(2, "epoch")),
        (" 200steps ", Interval(200, "step")),
    ],
)
def test_intervals(text: str, interval: Interval) -> None:
    adapter = TypeAdapter(Every)
    assert adapter.validate_python(text) == interval
    assert adapter.validate_python(adapter.dump_python(interval)) == interval


@pytest.mark.parametrize(
    "value", ["0 steps", "-1 epoch", "1", 1, "1 hour", "epoch", "1.5 epochs", "٣ steps", None, ["1 epoch"]]
)
def test_bad_intervals(value: object) -> None:
    with pytest.raises(ValidationError, match="must be an interval such as"):
        TypeAdapter(Every).validate_python(value)


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("2 epochs", Interval(2, "epoch")),
        ("200 steps", Interval(200, "step")),
        ("90 s", Interval(90, "second")),
        ("1.5 minutes", Interval(90, "second")),
        ("2 hours", Interval(7200, "second")),
    ],
)
def test_intervals_by_the_clock(text: str, interval: Interval) -> None:
    adapter = TypeAdapter(EveryOrTime)
    assert adapter.validate_python(text) == interval
    assert adapter.validate_python(adapter.dump_python(interval)) == interval


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("0 steps", "must be an interval such as"),
        ("0.2 s", "must be at least 1 second"),
        (30, "must be an interval such as"),
        ("1 day", "'10 minutes'"),
    ],
)
def test_bad_intervals_by_the_clock(value: object, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TypeAdapter(EveryOrTime).validate_python(value)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (90, 90.0),
        (0.5, 0.5),
        ("90 s", 90.0),
        ("1.5 minutes", 90.0),
        ("10min", 600.0),
        ("2 hours", 7200.0),
        ("1 h", 3600.0),
    ],
)
def test_times(value: object, seconds: float) -> None:
    assert TypeAdapter(Seconds).validate_python(value) == seconds


@pytest.mark.parametrize(
    "value", [0, -1, True, "90", "0 s", "3 days", "-1 s", 1e12, "9" * 400 + " s", None, [], "1 ss"]
)
def test_bad_times(value: object) -> None:
    with pytest.raises(ValidationError, match="must be a time above 0"):
        TypeAdapter(Seconds).validate_python(value)


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [
        (">= 0.9", 0.9, True),
        ("> 0.9", 0.9, False),
        ("<= 1e-3", 0.001, True),
        ("<0.5", 0.5, False),
        ("== 3", 3.0, True),
        (">= -1", math.nan, False),
        ("< 1", math.nan, False),
        ("== 1", math.nan, False),
    ],
)
def test_conditions(text: str, value: float, holds: bool) -> None:
    assert TypeAdapter(Bound).validate_python(text).holds(value) is holds


@pytest.mark.parametrize(
    "value", ["0.9", "=> 0.9", ">= ", ">= nan", "> inf", ">= 1e999", 0.9, None, ">= 0.9 or so", "!= 1"]
)
def test_bad_conditions(value: object) -> None:
    with pytest.raises(ValidationError, match="must be a condition such as"):
        TypeAdapter(Bound).validate_python(value)


@settings(derandomize=True, deadline=None)
@given(st.sampled_from([">=", ">", "<=", "<", "=="]), st.floats(allow_nan=False, allow_infinity=False))
def test_a_condition_is_written_without_loss(relation: str, bound: float) -> None:
    condition = Condition(relation, bound)  # type: ignore[arg-type]
    assert TypeAdapter(Bound).validate_python(str(condition)) == condition


def test_a_condition_is_written_shortly() -> None:
    assert str(Condition(">=", 475.0)) == ">= 475"


@pytest.mark.parametrize("name", ["a", "a" * 63, "0.1_b-c", "lenet5.v2"])
def test_names(name: str) -> None:
    assert TypeAdapter(Name).validate_python(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a" * 64,
        "A",
        "../a",
        "a/b",
        "/a",
        ".a",
        "-a",
        "a..b",
        "a b",
        "ä",
        "a\n",
        "a\0",
        "a:b",
        "~",
        "a%2f",
    ],
)
def test_names_that_could_leave_their_folder_or_confuse(name: str) -> None:
    with pytest.raises(ValidationError, match="is not a name"):
        TypeAdapter(Name).validate_python(name)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (1.5, "1.5"),
        ("a\nb", r"'a\nb'"),
        ("x" * 1000, repr("x" * 59 + "…")),
        ({}, "an empty mapping"),
        ({"a": ["x" * 10**6]}, "a mapping"),
        ([1, 2], "a list of 2"),
    ],
)
def test_values_are_shown_shortly_and_in_one_line(value: object, text: str) -> None:
    assert show(value) == text
