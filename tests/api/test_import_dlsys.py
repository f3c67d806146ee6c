"""`import dlsys` is light, and says what it offers to people, editors and type checkers."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dlsys

HEAVY = {"torch", "ray", "mlflow", "pydantic", "pandas", "numpy", "yaml", "rich", "typer"}


def loaded_by(statement: str) -> set[str]:
    """What is imported in an interpreter of its own."""
    code = f"import sys; {statement}; print(*sys.modules)"
    environment = {"PYTHONPATH": str(Path(dlsys.__file__).parents[1])}
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_the_import_loads_nothing_heavy() -> None:
    assert not loaded_by("import dlsys") & HEAVY


def test_a_name_that_is_asked_for_loads_what_it_needs() -> None:
    loaded = loaded_by("from dlsys import find, Run")
    assert "dlsys.api.runs" in loaded
    assert not loaded & {"torch", "ray", "mlflow", "pandas"}


@pytest.mark.parametrize("name", dlsys._OFFERED)
def test_each_name_is_there_and_documented(name: str) -> None:
    found = getattr(dlsys, name)
    assert found.__name__ == name
    assert found.__doc__
    assert name in dir(dlsys)
    assert name in vars(dlsys), "it is looked up once"


def test_another_name_is_not() -> None:
    with pytest.raises(AttributeError, match="module 'dlsys' has no attribute 'runn'"):
        dlsys.runn  # noqa: B018


def test_type_checkers_are_told_the_same() -> None:
    stub = ast.parse(Path(dlsys.__file__).with_suffix(".pyi").read_text())
    told = {
        alias.asname: f"{node.module}:{alias.name}"
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert told == dlsys._OFFERED
