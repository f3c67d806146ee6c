"""A covering part of the matrix of crossing checkpoints: each strategy is once source, once target."""

from __future__ import annotations

from pathlib import Path

import pytest
from crossing import STRATEGIES, cross, source, whole
from harness import Trained

# From each to the one three places on: neighbours in the list are alike.
PAIRS = [(name, STRATEGIES[(i + 3) % len(STRATEGIES)]) for i, name in enumerate(STRATEGIES)]


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return whole(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(("begins", "target"), PAIRS)
def test_goes_on_as_if_nothing_had_happened(begins: str, target: str, truth: Trained, tmp_path: Path) -> None:
    workers = 1 if target == "single" else 4 if target in ("ddp", "fsdp") else 2
    begun = source(begins, tmp_path / "begun")
    assert cross(begun, target, workers, truth, tmp_path / "on") < 1e-4
