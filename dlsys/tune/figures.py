"""The figures of a sweep's report, drawn with matplotlib, which comes with MLflow.

Colours are told apart by eyes that confuse red and green, and each is doubled by a marker, a line
style or a place. Good values and later rungs are the darker ones.
"""

from __future__ import annotations

import base64
import io
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlsys.spec.sweep.sweep import Halving
from dlsys.tune import summary
from dlsys.tune.director import Director, Trial
from dlsys.tune.importance import Importance

ACCENT, GREY = "#D55E00", "#8a8f98"  # vermilion of Okabe and Ito's palette
_MARKERS = "osD^vPX*"
_STYLES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (3, 1)), (0, (1, 1)), "-")
MOST_AXES = 10
# With more lines than this, they are drawn as pixels: as curves, they would make megabytes.
MOST_CURVES = 300

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555",
    "axes.labelcolor": "#222",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e8eb",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "white",
    "svg.hashsalt": "dlsys",
}


@dataclass(frozen=True)
class Drawn:
    """A figure.

    Attributes:
        name: of its file.
        title: what it shows, as a sentence.
        caption: how to read it.
        svg: as an address that holds the image itself.
    """

    name: str
    title: str
    caption: str
    svg: str


@contextmanager
def canvas(width: float, height: float) -> Iterator[Any]:
    """A figure of its own, not pyplot's, which would keep it."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def keep(figure: Any, folder: Path, name: str, title: str, caption: str) -> Drawn:
    """Writes the PNG, with its title, and the SVG, whose title is the page's."""
    svg = io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None}, dpi=120)
    figure.suptitle(title, fontsize=12, fontweight="bold", x=0.01, ha="left")
    figure.savefig(folder / f"{name}.png", dpi=150)
    return Drawn(
        name, title, caption, "data:image/svg+xml;base64," + base64.b64encode(svg.getvalue()).decode()
    )


def shades(count: int) -> list[Any]:
    """Colours from light to dark; viridis without its yellow, which is lost on white."""
    from matplotlib import colormaps

    return [colormaps["viridis"](0.88 * (1 - i / max(1, count - 1))) for i in range(count)]


def _look(axis: Any, metric: str, values: Sequence[float], mode: str) -> str:
    """Sets a metric's axis to where the values are; a sentence on what is outside."""
    low, high = summary.window(values, mode, far=20)
    if mode == "min" and low > 0 and high > 8 * low:
        axis.set_yscale("log")
        axis.set_ylim(low / 1.15, high * 1.15)
        axis.set_ylabel(f"{metric}, on a log scale")
    else:
        axis.set_ylabel(metric)
        pad = 0.05 * (high - low)
        axis.set_ylim(low - pad, high + pad)
    bottom, top = axis.get_ylim()
    out = sum(not bottom <= value <= top for value in values if not math.isnan(value))
    lost = sum(math.isnan(value) for value in values)
    texts = [f"{out} far worse value{'s are' if out > 1 else ' is'} outside of the picture." if out else ""]
    texts.append(
        f"{lost} value{'s that are' if lost > 1 else ' that is'} NaN cannot be shown." if lost else ""
    )
    return " ".join(filter(None, texts))


def draw_progress(director: Director, folder: Path) -> Drawn:
    """The best value so far against the time, and against epochs trained."""
    sweep, steps = director.sweep, summary.steps(director)
    total = steps[-1].seconds
    unit, size = ("hours", 3600) if total > 2 * 3600 else ("minutes", 60) if total > 120 else ("seconds", 1)
    best = director.best
    assert best is not None, "somebody was measured"
    end = max(i for i, report in enumerate(director.history) if report.trial == best.number)
    with canvas(9.5, 3.8) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for panel, across, label in (
            (panels[0], [step.seconds / size for step in steps], f"time in which trials trained ({unit})"),
            (panels[1], [float(step.epochs) for step in steps], "epochs trained by all trials"),
        ):
            values = [step.value for step in steps]
            many = len(steps) > MOST_CURVES
            panel.plot(
                across, values, "o", color=GREY, ms=3.5, alpha=0.5, mew=0, label="one report", rasterized=many
            )
            line = [step.best for step in steps]
            panel.step(across, line, where="post", color=shades(2)[1], lw=2.2, label="best so far")
            panel.plot(
                across[end],
                values[end],
                "*",
                color=ACCENT,
                ms=15,
                mec="white",
                label=f"trial {best.number}, the best",
            )
            panel.set_xlabel(label)
            panel.set_xlim(left=0)
            panel.margins(x=0.03)
        outside = _look(panels[0], sweep.metric, [step.value for step in steps], sweep.mode or "max")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        when = summary.clock_text(steps[end].seconds)
        title = (
            f"The best {sweep.metric}, {best.value:.4g}, was there after {when} "
            f"and {summary.many(steps[end].epochs, 'epoch')} of training"
        )
        caption = (
            "Each point is a report of a trial, the line is the best of them so far; pauses of the sweep are "
            f"left out. The star is the best trial's last report. {outside}"
        )
        return keep(figure, folder, "progress", title, caption)


def draw_curves(director: Director, folder: Path) -> Drawn:
    """A line a trial, by the rung that it reached."""
    from matplotlib.collections import LineCollection
    from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, ScalarFormatter

    sweep, best = director.sweep, director.best
    assert best is not None, "somebody was measured"
    trials = [trial for trial in director.trials.values() if trial.reports and trial is not best]
    rungs = [rung.epoch for rung in summary.rungs(director) if rung.trials]
    groups: dict[int, list[Trial]] = {rung: [] for rung in rungs}

    def reached(trial: Trial) -> int:
        return next((rung for rung in rungs if rung >= trial.epoch), rungs[-1])

    for trial in trials:
        groups[reached(trial)].append(trial)
    many = len(trials) > MOST_CURVES
    alpha = max(0.25, min(0.9, 40 / max(1, len(trials))))
    with canvas(9.5, 4.6) as figure:
        axis = figure.subplots()
        for place, (rung, shade) in enumerate(zip(rungs, shades(len(rungs)), strict=True)):
            if not groups[rung]:
                continue
            group, mark = groups[rung], _MARKERS[place % len(_MARKERS)]
            style = _STYLES[place % len(_STYLES)]
            lines = [trial.reports for trial in group if len(trial.reports) > 1]
            looks: dict[str, Any] = {"linestyles": [style], "alpha": alpha, "rasterized": many}
            axis.add_collection(LineCollection(lines, linewidths=1.3, colors=[shade], **looks))
            points = [trial.reports[-1] for trial in group]
            across, up = zip(*points, strict=True)
            axis.plot(across, up, mark, color=shade, ms=5, mew=0, alpha=max(0.4, alpha), rasterized=many)
            label = f"to epoch {rung}: {len(group) + (rung == reached(best))}"
            axis.plot([], [], color=shade, ls=style, marker=mark, ms=5, mew=0, label=label)
        epochs, values = zip(*best.reports, strict=True)
        axis.plot(epochs, values, color="white", lw=5, zorder=5)
        label = f"trial {best.number}, the best"
        axis.plot(epochs, values, "-o", color=ACCENT, lw=2.6, ms=6, mec="white", zorder=6, label=label)
        every = [value for trial in director.trials.values() for _, value in trial.reports]
        outside = _look(axis, sweep.metric, every, sweep.mode or "max")
        if isinstance(sweep.scheduler, Halving):
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(FixedLocator([float(rung) for rung in rungs]))
            axis.xaxis.set_minor_locator(NullLocator())
            axis.xaxis.set_major_formatter(ScalarFormatter())
        else:
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.set_xlim(0, 1.03 * max(trial.epoch for trial in [best, *trials]))
        axis.set_xlabel("epochs" + (", on a log scale" if axis.get_xscale() == "log" else ""))
        figure.legend(loc="outside right upper", title="trials trained", alignment="left")
        title = f"Trial {best.number} leads {len(trials) + 1} measured trials with {best.value:.4g}"
        if not trials:
            title = f"Trial {best.number}, the only one that was measured, came to {best.value:.4g}"
        caption = (
            "A line is a trial; its last report has a mark, and its colour says how far it was trained. "
            + outside
        )
        return keep(figure, folder, "curves", title, caption)


def draw_importance(folder: Path, told: Importance) -> Drawn:
    """A bar a key."""
    keys = list(told.shares)[:MOST_AXES]
    shares = [told.shares[key] for key in keys]
    names = [key[0] for key in keys]
    names = [f"{n} ({k[1]})" if names.count(n) > 1 else n for n, k in zip(names, keys, strict=True)]
    with canvas(8.0, 1.0 + 0.36 * len(keys)) as figure:
        axis = figure.subplots()
        bars = axis.barh(names, [100 * share for share in shares], color=shades(2)[1], height=0.62)
        axis.bar_label(bars, ["<1%" if 0 < share < 0.005 else f"{share:.0%}" for share in shares], padding=4)
        axis.invert_yaxis()
        axis.set_xlim(0, 112 * max(shares))
        axis.set_xlabel("share of the importance (%)")
        axis.grid(axis="y", visible=False)
        axis.tick_params(axis="y", length=0)
        title = f"What mattered most was {names[0]}"
        caption = (
            f"Told from {told.trials} trials after {summary.many(told.epoch, 'epoch')}: how much worse a "
            "random forest foretells the order of trials that it has not seen when the key's settings are "
            f"swapped among them. It explains {told.explained:.0%} of that order"
            + ("; that is little, so take it as a hint." if told.explained < 0.3 else ".")
        )
        return keep(figure, folder, "importance", title, caption)
