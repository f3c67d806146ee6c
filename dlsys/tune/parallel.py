"""Parallel coordinates of a sweep's settings: a line a trial, through what was drawn to its value."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from dlsys.spec.sweep import space
from dlsys.tune import axes, summary
from dlsys.tune.axes import Axis, Key
from dlsys.tune.director import Director
from dlsys.tune.figures import ACCENT, GREY, MOST_AXES, MOST_CURVES, Drawn, canvas, keep, shades
from dlsys.tune.importance import Importance

Point = tuple[float, float]


class _Line(NamedTuple):
    """A trial's points, from axis to axis; those of keys that it does not have are missing.

    Attributes:
        value: None where it was not measured.
    """

    trial: int
    points: list[Point]
    value: float | None


def draw_settings(director: Director, folder: Path, told: Importance) -> Drawn:
    """Draws the keys in the space's order; of very many, those that matter most."""
    from matplotlib.colors import ListedColormap, Normalize

    best, mode = director.best, director.sweep.mode or "max"
    assert best is not None, "somebody was measured"
    scales = axes.axes(space.parse(director.sweep.space)[0])
    shown = list(scales)
    if len(shown) > MOST_AXES:
        first = (list(told.shares) or shown)[:MOST_AXES]
        shown = [key for key in shown if key in first]
    lines = _lines(director, {key: scales[key] for key in shown})
    values = [line.value for line in lines if line.value is not None]
    low, high = summary.window(values, mode, far=5)
    norm, sign = Normalize(low, high, clip=True), 1 if mode == "max" else -1
    colours = ListedColormap(shades(256) if mode == "max" else shades(256)[::-1])
    # The best are drawn last, above the others.
    lines.sort(key=lambda line: -math.inf if line.value is None else sign * line.value)
    for line in lines:
        if line.value is not None:
            line.points.append((float(len(shown)), float(norm(line.value))))
    with canvas(max(9.5, len(shown) + 2.5), 4.8) as figure:
        axis = figure.subplots()
        others = [line for line in lines if line.trial != best.number]
        shade = [GREY if line.value is None else colours(norm(line.value)) for line in others]
        _draw_lines(axis, others, shade)
        for line in lines:
            if line.trial == best.number:
                _draw_best(axis, line)
        _draw_axes(axis, [scales[key] for key in shown], director.sweep.metric)
        from matplotlib.cm import ScalarMappable

        bar = figure.colorbar(ScalarMappable(Normalize(low, high), colours), ax=axis, pad=0.01, aspect=30)
        pad = 0.04 * (high - low)  # so that its ends are level with those of the axes
        bar.set_ticks([tick for tick in bar.get_ticks() if low <= tick <= high])
        bar.ax.set_ylim(low - pad, high + pad)
        bar.outline.set_visible(False)
        bar.set_label(director.sweep.metric)
        figure.legend(loc="outside lower center")
        caption = (
            "A line is a trial; it goes through its settings to its last value, whatever the epoch. Dark is "
            "good. A dotted stretch passes over keys that the trial does not have"
        )
        caption += ", and grey dotted lines are trials without a value." if len(values) < len(lines) else "."
        if low > min(values) or high < max(values):
            caption += " Values that are far worse are drawn at the end of the scale."
        if len(shown) < len(scales):
            caption += f" Of {len(scales)} keys, {len(shown)} are shown."
        title = f"Where the good settings lie: {len(values)} trials, the darkest are the best"
        if len(values) == 1:
            title = f"The settings of trial {best.number}, the only one with a value"
        return keep(figure, folder, "settings", title, caption)


def _lines(director: Director, shown: dict[Key, Axis]) -> list[_Line]:
    tree = space.parse(director.sweep.space)[0]
    values = {trial.number: trial.value for trial in summary.measured(director)}
    found = []
    for trial in director.trials.values():
        drawn = dict(axes.drawn(tree, trial.settings))
        # Lines through the same option lie side by side: multiples of the golden ratio are spread evenly.
        shift = ((trial.number * 0.618034) % 1 - 0.5) / 4
        points = [
            (float(x), axis.where(drawn[key]) + (shift / len(axis.options) if axis.options else 0.0))
            for x, (key, axis) in enumerate(shown.items())
            if key in drawn
        ]
        found.append(_Line(trial.number, points, values.get(trial.number)))
    return found


def _draw_lines(axis: Any, lines: list[_Line], colours: list[Any]) -> None:
    from matplotlib.collections import LineCollection

    many = len(lines) > MOST_CURVES
    alpha = max(0.3, min(0.85, 40 / max(1, len(lines))))
    parts: dict[Any, list[tuple[Any, list[Point]]]] = {":": [], "-": [], (0, (1, 3)): []}
    dots: list[tuple[float, float, Any]] = []
    for line, colour in zip(lines, colours, strict=True):
        for a, b in pairwise(line.points):
            usual = ":" if line.value is None else "-"
            parts[usual if b[0] - a[0] == 1 else (0, (1, 3))].append((colour, [a, b]))
        dots += [(*point, colour) for point in line.points]
    for style, pieces in parts.items():
        shade, stretches = [colour for colour, _ in pieces], [stretch for _, stretch in pieces]
        looks: dict[str, Any] = {"linestyles": [style], "alpha": alpha, "rasterized": many}
        axis.add_collection(LineCollection(stretches, linewidths=1.2, colors=shade, **looks))
    if dots:
        across, up, shade = map(list, zip(*dots, strict=True))
        strong = min(1.0, 1.5 * alpha)
        axis.scatter(across, up, c=shade, s=7, linewidths=0, alpha=strong, rasterized=many, zorder=3)


def _draw_best(axis: Any, line: _Line) -> None:
    for a, b in pairwise(line.points):
        across, up = zip(a, b, strict=True)
        whole = b[0] - a[0] == 1
        axis.plot(across, up, color="white", lw=5 if whole else 0, zorder=4)
        style = "-" if whole else ":"
        axis.plot(across, up, color=ACCENT, ls=style, marker="o", lw=2.4, ms=5, mec="white", zorder=5)
    label = f"trial {line.trial}, the best"
    axis.plot([], [], "-o", color=ACCENT, lw=2.4, ms=5, mec="white", label=label)


def _draw_axes(axis: Any, scales: list[Axis], metric: str) -> None:
    behind = {"facecolor": "white", "alpha": 0.75, "pad": 0.8, "linewidth": 0}
    for x, scale in enumerate(scales):
        for y, text in _ticks(scale):
            axis.plot([x - 0.02, x], [y, y], color="#555", lw=0.8, zorder=6)
            axis.text(x - 0.04, y, text, ha="right", va="center", fontsize=8, zorder=7, bbox=behind)
    for x in range(len(scales) + 1):
        axis.axvline(x, color="#555", lw=0.9, zorder=2)
    # Broken at dots, names of neighbours do not run into each other.
    names = [s.name.replace(".", ".\n") + ("\n(log scale)" if s.kind == "log" else "") for s in scales]
    axis.set_xticks(range(len(scales) + 1), [*names, metric.replace("/", "/\n")], fontsize=9)
    axis.tick_params(axis="x", length=0, pad=8)
    axis.set_yticks([])
    axis.grid(False)
    axis.spines[["left", "bottom"]].set_visible(False)
    axis.set_xlim(-0.45, len(scales) + 0.05)
    axis.set_ylim(-0.04, 1.04)


def _ticks(axis: Axis) -> list[tuple[float, str]]:
    from matplotlib.ticker import LogLocator, MaxNLocator

    if axis.kind == "choice":
        step = math.ceil(len(axis.options) / 16)
        return [(axis.where(option), option) for option in axis.options[::step]]
    low, high = axis.ends
    if axis.kind == "log":
        inside = [v for v in LogLocator(10).tick_values(low, high) if low < v < high]
        # Those that the ends would cover are left out.
        found = [low, *[v for v in inside if 0.08 < axis.where(v) < 0.92], high]
    else:
        found = [v for v in MaxNLocator(5, integer=axis.whole).tick_values(low, high) if low <= v <= high]
    return [(axis.where(value), f"{value:.4g}") for value in found]
