"""The reader: YAML 1.2's scalars, lines, and bounds. Files that are refused are in `bad/`."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlsys.errors import SpecError
from dlsys.spec import yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E-4", 1e-4),
        ("1.0e+3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-0.25", -0.25),
        ("+7", 7),
        ("007", 7),
        ("0x10", 16),
        ("0o17", 15),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("no", "no"),
        ("on", "on"),
        ("12:30:45", "12:30:45"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("1e", "1e"),
        (".", "."),
        ("0b11", "0b11"),
        ("-0x10", "-0x10"),
        ("nan", "nan"),
        ("=", "="),
    ],
)
def test_plain_scalars_mean_what_yaml_1_2_says(text: str, value: object) -> None:
    found = yaml.plain(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", [".nan", ".NaN", ".inf", "-.INF", "1e999", "-1e400", "9" * 65])
def test_plain_refuses_what_no_field_can_hold(text: str) -> None:
    with pytest.raises(ValueError, match=r"finite|too large|characters"):
        yaml.plain(text)


def test_a_number_of_64_characters_is_read() -> None:
    assert yaml.plain("9" * 64) == 10**64 - 1


def test_quoted_scalars_and_blocks_are_text() -> None:
    document = yaml.read("a: '1'\nb: \"true\"\nc: |\n  2\nd: ! 3\n", "f")
    assert document.data == {"a": "1", "b": "true", "c": "2\n", "d": "3"}


def test_lines_are_those_of_the_keys() -> None:
    text = "# first\na:\n  b: 1\n  c:\n    - x\n    - {d: 2,\n       e: 3}\n\nf: >\n  text\n"
    document = yaml.read(text, "f")
    lines = {yaml.dotted(path): line for path, line in document.lines.items()}
    assert lines == {"": 2, "a": 2, "a.b": 3, "a.c": 4, "a.c[0]": 5, "a.c[1]": 6} | {
        "a.c[1].d": 6,
        "a.c[1].e": 7,
        "f": 9,
    }


def test_a_missing_value_has_the_line_of_what_is_around_it() -> None:
    document = yaml.read("a: 1\nb:\n  c: {d: 1}\n", "f")
    assert document.line(("b", "c", "x", "y")) == 3
    assert document.line(("nothing",)) == 1


def test_anchors_are_copied_not_shared() -> None:
    document = yaml.read("a: &x {k: [1]}\nb: *x\n", "f")
    assert document.data == {"a": {"k": [1]}, "b": {"k": [1]}}
    document.data["b"]["k"].append(2)
    assert document.data["a"] == {"k": [1]}


def test_windows_lines_and_a_byte_order_mark() -> None:
    document = yaml.read(b"\xef\xbb\xbfa: 1\r\nb: \xc3\xa4\r\n", "f")
    assert document.data == {"a": 1, "b": "ä"}
    assert document.lines[("b",)] == 2


def test_an_unreadable_item_keeps_its_place_in_a_list() -> None:
    document = yaml.read("a: [1, .nan, 3]", "f")
    assert document.data == {"a": [1, None, 3]}
    assert document.unread == {("a", 1)}


def test_problems_found_before_a_syntax_error_are_kept() -> None:
    with pytest.raises(SpecError) as caught:
        yaml.read("a: 1\na: 2\nb: [\n", "f")
    assert [problem.line for problem in caught.value.problems] == [2, 4]


def test_problems_have_an_end() -> None:
    with pytest.raises(SpecError) as caught:
        yaml.read("".join(f"k{n}: .nan\n" for n in range(10_000)), "f")
    assert len(caught.value.problems) == yaml.MAX_PROBLEMS + 1


@pytest.mark.parametrize("text", ["[" * 200_000, "{a: " * 60_000, "- " * 100_000, "? " * 100_000])
def test_deep_nesting_is_refused_by_name(text: str) -> None:
    with pytest.raises(SpecError, match=r"deeper|plain text"):
        yaml.read(text, "f")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("#" * (yaml.MAX_BYTES + 1), "f: larger than 256 KiB: a job file is a page or two"),
        (
            f"a:\n [{'1,' * yaml.MAX_VALUES}]",
            "f:2: more than 20,000 values, aliases counted as often as used",
        ),
        (f"a: b\n{'k' * 201}: 1", "f:2: a key of 201 characters; the limit is 200"),
    ],
)
def test_bounds(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        yaml.read(text, "f")
    assert str(caught.value) == message


scalars = st.none() | st.booleans() | st.integers(-(10**60), 10**60) | st.text(st.characters(codec="utf-8"))
numbers = st.floats(allow_nan=False, allow_infinity=False)
numeric_text = st.from_regex(r"[-+0-9.eExob_:~]{1,8}", fullmatch=True)
values = st.recursive(
    scalars | numbers | numeric_text,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("ab1.e-~ ", max_size=9), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(values)
def test_dump_is_read_back_as_the_same_value(value: object) -> None:
    document = yaml.read(yaml.dump(value), "f")
    assert not document.problems
    assert document.data == value
    assert _types(document.data) == _types(value)


def _types(value: object) -> object:
    if isinstance(value, dict):
        return {key: _types(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_types(inner) for inner in value]
    return (type(value), math.copysign(1, value)) if isinstance(value, float) else type(value)
