"""Which tests stay together when several processes share the suite, and which come first (pytest-xdist)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from xdist.scheduler import LoadScopeScheduling

DURATIONS = Path(__file__).parent / "durations.md"


def group(nodeid: str) -> str:
    """What a test is dealt out with: one process runs all tests of a file, so its fixtures are made once."""
    return nodeid.partition("::")[0]


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


def quickest(nodeids: Iterable[str], within: float) -> set[str]:
    """The groups that take so many seconds together, quick ones first; without a record one takes 1 s."""
    seconds = recorded()
    groups = {group(nodeid) for nodeid in nodeids}
    chosen: set[str] = set()
    for file in sorted(groups, key=lambda file: (seconds.get(file, 1.0), file)):
        within -= seconds.get(file, 1.0)
        if within < 0:
            break
        chosen.add(file)
    return chosen


def recorded() -> dict[str, float]:
    """Seconds by file, as `make durations` found them last."""
    rows = re.findall(r"^\| (tests/\S+\.py) \| ([\d.]+) \|$", DURATIONS.read_text(), re.MULTILINE)
    return {file: float(seconds) for file, seconds in rows}
