"""Finds workers that are steadily slower than the others, from what each has written into its spool.

Where workers meet in every step, all steps take equally long: a slow worker is one that is busy while
the others wait. Each worker's busy seconds a step are compared every few seconds. One that is busy half
as long again as the median of the others, several times in a row, is reported; one that is near them
again as often in a row, likewise. In between nothing is said.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from dlsys.paths import RunPaths
from dlsys.track.spool import Spool, records

_LOOK_EVERY = 2.0
_SLOW, _LIKE_OTHERS = 1.5, 1.2
_IN_A_ROW = 5
# Less than this a step is not worth a word, and tiny steps differ by as much for no reason.
_WORTH_SECONDS = 1e-3


@dataclass
class _Rank:
    """What is known of one worker: how often in a row, since which step, and whether it was reported."""

    slow: int = 0
    fine: int = 0
    since: int = 0
    reported: bool = False


@dataclass(frozen=True)
class News:
    """A worker has become a straggler, or is none any more.

    Attributes:
        since: the first step of the comparison that it began with.
        busy: its own seconds a step; `others`, the median of the other workers'.
    """

    rank: int
    slow: bool
    since: int
    busy: float
    others: float


class Judge:
    """Decides, comparison by comparison, who is a straggler."""

    def __init__(self) -> None:
        self._ranks: dict[int, _Rank] = {}

    def compare(self, busy: Mapping[int, float], step: int) -> list[News]:
        """What has changed.

        Args:
            busy: each rank's busy seconds a step since the last comparison.
            step: the first step since then.
        """
        found = []
        for rank, seconds in busy.items():
            known = self._ranks.setdefault(rank, _Rank())
            others = median(value for other, value in busy.items() if other != rank)
            slow = seconds > _SLOW * others and seconds - others > _WORTH_SECONDS
            fine = seconds < _LIKE_OTHERS * others or seconds - others < _WORTH_SECONDS
            if (slow and not known.slow) or (fine and not known.fine):
                known.since = step
            known.slow = known.slow + 1 if slow else 0
            known.fine = known.fine + 1 if fine else 0
            if (known.fine if known.reported else known.slow) >= _IN_A_ROW:
                known.reported = not known.reported
                found.append(News(rank, known.reported, known.since, seconds, others))
        return found


class Stragglers:
    """Watches the workers of one attempt; their steps are not asked.

    Args:
        paths: the run.
        workers: how many.
        note: gets a sentence about each change.
    """

    def __init__(self, paths: RunPaths, workers: int, note: Callable[[str], None]) -> None:
        self._paths, self._note = paths, note
        self._judge = Judge()
        self._offsets = {rank: self._end(rank) for rank in range(workers)}
        self._busy: dict[int, list[float]] = {rank: [] for rank in range(workers)}
        self._hosts: dict[int, str] = {}
        self._told: dict[int, str] = {}
        self._step = 0
        self._next = time.monotonic() + _LOOK_EVERY

    def look(self) -> None:
        """Called often; does something now and then."""
        if len(self._busy) < 2 or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _LOOK_EVERY
        for rank in self._busy:
            self._read(rank)
        if not all(self._busy.values()):
            return  # a rank has logged nothing yet: the comparison waits for it
        news = self._judge.compare({rank: fmean(found) for rank, found in self._busy.items()}, self._step)
        for found in self._busy.values():
            found.clear()
        self._step = 0
        if news:
            self._tell(news)

    def _read(self, rank: int) -> None:
        for record, end in records(self._spool(rank), self._offsets[rank]):
            self._offsets[rank] = end
            self._hosts[rank] = record.get("host", self._hosts.get(rank, ""))
            busy = record.get("m", {}).get(f"system/rank{rank}/busy_seconds")
            if busy is not None:
                self._busy[rank].append(busy)
                self._step = self._step or int(record["s"])

    def _tell(self, news: list[News]) -> None:
        for each in news:
            who = f"rank {each.rank} on {self._hosts[each.rank]}"
            if each.slow:
                how = f"{each.busy:.3g} s of its own work a step, the others {each.others:.3g} s"
                self._told[each.rank] = f"{who}: {how}, since step {each.since}"
                self._note(f"{who} holds the others up since step {each.since}: {how}")
            else:
                self._told[each.rank] += f", until step {each.since}"
                self._note(f"{who} is as fast as the others again since step {each.since}")
        spool = Spool(self._paths.spool / "driver.jsonl")
        spool.tags({"dlsys.straggler": "; ".join(self._told.values())})
        spool.close()

    def _spool(self, rank: int) -> Path:
        return self._paths.spool / f"rank-{rank}.jsonl"

    def _end(self, rank: int) -> int:
        """What an earlier attempt wrote is no news."""
        path = self._spool(rank)
        return path.stat().st_size if path.exists() else 0
