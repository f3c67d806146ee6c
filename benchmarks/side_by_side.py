"""Two ways of doing one thing, in turn in one run: A B A B …, so that a noisy machine hits both."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


@dataclass
class Row:
    """One comparison.

    Attributes:
        work: what was done.
        peer: whom dlsys is held against.
        ours, theirs: medians, in `unit`.
        ratio: ours / theirs, the median of the ratios pair by pair.
        spread: the smallest and the largest of those ratios.
        goal: what the ratio should be (`<= 3`).
        load: the machine's load average over the run; above the number of cores is noise.
    """

    work: str
    peer: str
    ours: float
    theirs: float
    ratio: float
    spread: tuple[float, float]
    unit: str
    goal: str
    load: float

    @property
    def met(self) -> bool:
        relation, bound = self.goal.split()
        return self.ratio <= float(bound) if relation == "<=" else self.ratio >= float(bound)


def compare(
    work: str,
    peer: str,
    ours: Callable[[], float],
    theirs: Callable[[], float],
    *,
    goal: str,
    unit: str = "s",
    runs: int = 5,
) -> Row:
    """Measures both sides in turn, after one uncounted run of each.

    Args:
        ours, theirs: do the work once and return what was measured.
    """
    ours()
    theirs()
    pairs = [(ours(), theirs()) for _ in range(runs)]
    ratios = [a / b for a, b in pairs]
    return Row(
        work,
        peer,
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(ratios),
        (min(ratios), max(ratios)),
        unit,
        goal,
        os.getloadavg()[0],
    )


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def report(name: str, rows: list[Row]) -> None:
    """Prints a table and writes `benchmarks/results/<name>.json`."""
    cores = os.cpu_count() or 1
    print(f"\n{name}  ({platform.processor() or platform.machine()}, {cores} cores)")
    print(f"{'work':44} {'peer':26} {'ours':>11} {'theirs':>11} {'ratio':>7} {'spread':>13} goal")
    for row in rows:
        noise = "  (noisy: load " + f"{row.load:.1f})" if row.load > cores + 1 else ""
        spread = f"{row.spread[0]:.2f}–{row.spread[1]:.2f}"
        verdict = "met" if row.met else "MISSED"
        print(
            f"{row.work:44} {row.peer:26} {row.ours:9.4g} {row.unit:1} {row.theirs:9.4g} {row.unit:1} "
            f"{row.ratio:7.3f} {spread:>13} {row.goal} {verdict}{noise}"
        )
    versions = {name: metadata.version(name) for name in ("ray", "torch", "mlflow", "dlsys")}
    RESULTS.mkdir(exist_ok=True)
    document = {
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
        "versions": versions,
        "rows": [{**asdict(row), "met": row.met} for row in rows],
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1))
