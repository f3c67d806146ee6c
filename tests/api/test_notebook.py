"""The notebook among the documents runs from top to bottom, and is kept without what it showed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import dlsys

NOTEBOOK = Path(__file__).parents[2] / "docs" / "python.ipynb"


def cells() -> list[Any]:
    return [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]


def test_it_is_kept_without_outputs() -> None:
    assert cells()
    assert not [cell.source for cell in cells() if cell.outputs or cell.execution_count]


@pytest.mark.usefixtures("store")
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.fspath(Path(dlsys.__file__).parents[1]))
    book = nbformat.read(NOTEBOOK, as_version=4)
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(book, timeout=240, kernel_name="python3", resources=place).execute()
    train, *rest = (cell.outputs for cell in book.cells if cell.cell_type == "code")
    said = "".join(output.text for output in train if output.output_type == "stream")
    assert {output.name for output in train if output.output_type == "stream"} == {"stderr"}
    assert "epoch 4.0/4" in said, "progress is shown where the cell stands"
    for outputs in rest:
        assert {output.output_type for output in outputs} == {"execute_result"}, "libraries say nothing"
    (accuracy,) = rest[1]
    assert float(accuracy.data["text/plain"]) > 0.8
    (told,) = rest[2]
    rows = [line.split() for line in told.data["text/plain"].splitlines()[1:]]
    assert [int(row[1]) for row in rows] == list(range(10))
    assert sum(row[1] == row[2] for row in rows) >= 8
