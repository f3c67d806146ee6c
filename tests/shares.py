"""Which tests stay together when several processes share the suite, and which come first (pytest-xdist)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from xdist.scheduler import LoadScopeScheduling

DURATIONS = Path(__file__).parent / "durations.md"
# One process runs all tests of a file, so a file's fixtures are made once. These files share more.
_TOGETHER = {
    # Two clusters of two nodes at once keep two cores busy with themselves alone.
    "one cluster at a time": (
        "tests/jobs/test_cluster.py",
        "tests/jobs/test_cluster_commands.py",
        "tests/jobs/test_store_cluster.py",
    ),
    "one Ray": (
        "tests/rl/test_asynchronous.py",
        "tests/rl/test_dreamer.py",
        "tests/rl/test_offline.py",
        "tests/rl/test_value_agents.py",
    ),
}
_GROUPS = {file: name for name, files in _TOGETHER.items() for file in files}


def group(nodeid: str) -> str:
    """What a test is dealt out with."""
    file = nodeid.partition("::")[0]
    return _GROUPS.get(file, file)


class Shares(LoadScopeScheduling):
    """Deals out groups, in the order of their tests."""

    def __init__(self, config: Any, log: Any = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)


def longest_first(nodeids: list[str]) -> list[str]:
    """The order that leaves no process with a long group when the others are done."""
    seconds: dict[str, float] = {}
    for file, taken in recorded().items():
        seconds[group(file)] = seconds.get(group(file), 0.0) + taken
    return sorted(nodeids, key=lambda nodeid: -seconds.get(group(nodeid), 0.0))


def recorded() -> dict[str, float]:
    """Seconds by file, as `make durations` found them last."""
    rows = re.findall(r"^\| (tests/\S+\.py) \| ([\d.]+) \|$", DURATIONS.read_text(), re.MULTILINE)
    return {file: float(seconds) for file, seconds in rows}
