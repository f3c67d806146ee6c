"""The examples in docs/python.md run, one after the other; those that start a Ray have tests of their own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "python.md"


@pytest.mark.usefixtures("store")
def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    chosen = [block for block in blocks if "dlsys.sweep" not in block]
    assert len(chosen) == len(blocks) - 1 == 5
    told: dict[str, object] = {}
    for block in chosen:
        exec(block, told)
    run, scores = told["run"], told["scores"]
    assert run.job["stop"]["epochs"] == 3  # type: ignore[attr-defined]
    assert scores.shape == (1, 10)  # type: ignore[attr-defined]
