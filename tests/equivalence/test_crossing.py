"""A covering part of the matrix of crossing checkpoints: each strategy is once source, once target."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from crossing import MESH, STRATEGIES, Crossing, shared_workload

pytestmark = pytest.mark.slow

# From each to the one three places on: neighbours in the list are alike. `moe` shares a workload with
# some only.
_OTHERS = [name for name in STRATEGIES if name != "moe"]
PAIRS = [(name, _OTHERS[(i + 3) % len(_OTHERS)]) for i, name in enumerate(_OTHERS)]
PAIRS += [("moe", "zero"), ("ddp", "moe")]


@pytest.fixture(scope="module")
def crossing(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Crossing]:
    made: dict[str, Crossing] = {}

    def find(workload: str) -> Crossing:
        if workload not in made:
            made[workload] = Crossing(workload, tmp_path_factory.mktemp(workload))
        return made[workload]

    return find


@pytest.mark.parametrize(("begins", "target"), PAIRS)
def test_goes_on_as_if_nothing_had_happened(
    begins: str, target: str, crossing: Callable[[str], Crossing]
) -> None:
    workers = 1 if target == "single" else 4 if target in ("ddp", "fsdp", "moe", MESH) else 2
    workload = shared_workload(begins, target)
    assert workload is not None
    assert crossing(workload).cross(begins, target, workers) < 1e-4
