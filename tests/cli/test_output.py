"""`--json`: one document on standard output, whatever else is printed."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest

from dlsys.cli.output import give

LOUD = """
import os, subprocess, sys
import typer
from dlsys.cli.output import AsJson, give

app = typer.Typer()

@app.command()
def verb(as_json: AsJson = False) -> None:
    print("user's code")
    os.write(1, b"a library in C\\n")
    subprocess.run(["echo", "a child"])
    give({"metric": float("nan")}) if as_json else print("table")

app()
"""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (
            {"a": [math.nan, 1.5, math.inf], "b": {"c": -math.inf}},
            '{"a": [null, 1.5, null], "b": {"c": null}}',
        ),
        ((1, None, "ü"), '[1, null, "\\u00fc"]'),
    ],
)
def test_numbers_that_json_has_no_word_for_are_null(
    value: object, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    give(value)
    assert capsys.readouterr().out == f"{text}\n"


def test_all_else_goes_to_standard_error() -> None:
    done = subprocess.run([sys.executable, "-c", LOUD, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"metric": None}
    for line in ("user's code", "a library in C", "a child"):
        assert line in done.stderr


def test_without_it_nothing_is_moved() -> None:
    done = subprocess.run([sys.executable, "-c", LOUD], capture_output=True, text=True, check=True)
    assert sorted(done.stdout.splitlines()) == ["a child", "a library in C", "table", "user's code"]
