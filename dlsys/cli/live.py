"""What a person sees on a terminal while a sweep goes on: its rungs, what runs, and the best so far."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dlsys.cli.report import settings_text
from dlsys.tune import summary
from dlsys.tune.director import Director

_PAUSE = 0.25
_MOST_RUNNING = 6


class LiveSweep:
    """A table that is drawn over and over, no oftener than four times a second.

    It has no thread of its own, which would read what is just being changed.
    """

    def __init__(self, console: Console) -> None:
        self._live = Live(Text("starting …"), console=console, auto_refresh=False)
        self._began = time.monotonic()
        self._next = 0.0
        self._director: Director | None = None

    def __enter__(self) -> LiveSweep:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._director is not None:
            self._draw(self._director)
        self._live.stop()

    def update(self, director: Director) -> None:
        """Shows how the sweep stands, if it is time to."""
        self._director = director
        if time.monotonic() >= self._next:
            self._draw(director)

    def _draw(self, director: Director) -> None:
        self._live.update(view(director, time.monotonic() - self._began), refresh=True)
        self._next = time.monotonic() + _PAUSE


def view(director: Director, seconds: float) -> RenderableType:
    """The sweep as it stands.

    Args:
        seconds: since the sweep was begun, or taken up again.
    """
    metric = director.sweep.metric
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("EPOCH", "TRIALS", f"BEST {metric}", "OF TRIAL"):
        table.add_column(title, justify="right")
    for rung in summary.rungs(director):
        best = ("–", "–") if rung.best is None else (f"{rung.best:.4g}", str(rung.trial))
        table.add_row(str(rung.epoch), str(rung.trials), *best)
    rows = {"running": _running(director), "best": _best(director)}
    count = summary.counts(director)
    ended = {name: count.get(name, 0) for name in ("done", "stopped", "failed")}
    begun = f"{len(director.trials)} of {director.sweep.trials} begun"
    rows["trials"] = ", ".join([begun, *(f"{number} {name}" for name, number in ended.items())])
    rows["epochs"] = f"{director.epochs:,}"
    rows["time"] = summary.clock_text(seconds)
    facts = Table.grid(padding=(0, 2))
    for name, text in rows.items():
        # Text, not markup: settings may have brackets.
        facts.add_row(Text(name, style="dim"), Text(text))
    return Group(table, "", facts)


def line(director: Director) -> str:
    """The same in a line."""
    begun, running = f"{len(director.trials)} of {director.sweep.trials} begun", len(director.running)
    return f"trials {begun}, {running} running  epochs {director.epochs:,}  best {_best(director)}"


def _running(director: Director) -> str:
    legs = [
        f"{leg.trial} to " + ("its end" if leg.until is None else f"epoch {leg.until}")
        for leg in list(director.running.values())[:_MOST_RUNNING]
    ]
    more = len(director.running) - len(legs)
    return ("trial " if legs else "none") + ", ".join(legs) + (f", and {more} more" if more else "")


def _best(director: Director) -> str:
    best = director.best
    if best is None or best.value is None:
        return "none yet"
    where = f"{best.value:.4g}, trial {best.number} after {summary.many(best.epoch, 'epoch')}"
    return f"{where}: {settings_text(best.settings)}"
