"""A run's figures on a terminal: how far it is, and each metric's last value, its best and its curve."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dlsys.jobs.standing import Standing

_BLOCKS = "▁▂▃▄▅▆▇█"
_COLUMNS, _BAR = 32, 24
_MOST = 12
_NONE = "–"


def view(standing: Standing, title: str = "") -> RenderableType:
    """A run as it stands.

    Args:
        title: stands above it.
    """
    parts: list[RenderableType] = [Text(title)] if title else []
    if not standing.latest:
        return Group(*parts, Text("no figures yet", style="dim"))
    facts = Table.grid(padding=(0, 2))
    words = [Text(text) for text in (standing.came, standing.pace) if text]
    bar = [] if standing.share is None else [ProgressBar(total=1.0, completed=standing.share, width=_BAR)]
    facts.add_row(*bar, *words)
    parts.append(facts)
    if names := standing.shown:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("METRIC")
        table.add_column("LAST", justify="right", min_width=9)
        table.add_column("BEST", justify="right", min_width=9)
        table.add_column("")
        for name in names[:_MOST]:
            curve = standing.curves[name]
            best = _NONE if curve.best is None else f"{curve.best:.4g}"
            # Text, not markup: a metric's name is the user's.
            table.add_row(Text(name), f"{standing.latest[name]:.4g}", best, sparkline(curve.points))
        parts.append(table)
        if len(names) > _MOST:
            parts.append(Text(f"and {len(names) - _MOST} more", style="dim"))
    return Group(*parts)


def sparkline(points: Sequence[tuple[int, float]], columns: int = _COLUMNS) -> str:
    """A curve in a line, between its least and its largest value; blank where nothing was measured.

    Args:
        points: (step, value), in order. Of those that share a column, it shows the mean.
        columns: how many there are.
    """
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    if not finite:
        return ""
    first, last = finite[0][0], finite[-1][0]
    shared: dict[int, list[float]] = {}
    for step, value in finite:
        place = (step - first) * (columns - 1) // max(last - first, 1)
        shared.setdefault(place, []).append(value)
    # Few points stand side by side.
    means = [sum(values) / len(values) for values in shared.values()]
    low, high = min(means), max(means)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((mean - low) * scale)] for mean in means)
