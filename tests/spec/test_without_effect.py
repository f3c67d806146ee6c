"""An override that would change nothing is refused, and the one that acts is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlsys.errors import SpecError
from dlsys.spec.load import load, load_any


@pytest.mark.parametrize("read", [load, load_any])
@pytest.mark.parametrize(
    ("override", "acts"),
    [("optimizer.lr=0.02", "schedule.max_lr"), ("optimizer.momentum=0.5", "schedule.max_momentum")],
)
def test_what_the_schedule_sets_itself(override: str, acts: str, read, root: Path) -> None:
    path = root / "jobs/quickstart.yaml"
    with pytest.raises(SpecError) as found:
        read(path, [override])
    assert f"command line: {override.partition('=')[0]}: has no effect" in str(found.value)
    assert f"say {acts}" in str(found.value)
    assert read(path, [override, "schedule={name: constant}"])
    assert read(path, ["optimizer.weight_decay=0.1", f"{acts}=0.5"])
