"""What a person sees of a sweep at its end: one page that needs no network, and its figures as files."""

from __future__ import annotations

import html
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlsys.spec import yaml
from dlsys.spec.sweep import space
from dlsys.tune import axes, figures, summary
from dlsys.tune.axes import short
from dlsys.tune.director import Director, Trial
from dlsys.tune.importance import importance
from dlsys.tune.parallel import draw_settings

_BEST, _CAUSES, _MOST_KEYS = 10, 20, 8
_NONE = "–"

_CSS = """
:root { color-scheme: light; --ink: #1c2024; --soft: #5b6470; --line: #e1e4e8; --accent: #b34700; }
body { font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; color: var(--ink);
  background: #fff; max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; line-height: 1.35; margin: 2.8rem 0 .6rem; }
p { margin: .4rem 0; max-width: 46rem; }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
.lead { font-size: 1.1rem; margin-top: 1.1rem; }
.facts { display: flex; flex-wrap: wrap; gap: .8rem 2.6rem; margin: 1.4rem 0 0; }
.facts div { display: flex; flex-direction: column-reverse; }
.facts dt { color: var(--soft); font-size: .85rem; }
.facts dd { margin: 0; font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums; }
figure { margin: 0; }
figure img { max-width: 100%; height: auto; display: block; }
figcaption { margin-top: .5rem; max-width: 46rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .35rem 1.1rem .35rem 0;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
.number { text-align: right; }
tr.best td { font-weight: 600; color: var(--accent); }
.side { display: flex; flex-wrap: wrap; gap: 0 4rem; }
pre { background: #f6f7f9; padding: 1rem 1.2rem; overflow-x: auto;
  font: .82rem/1.5 ui-monospace, Menlo, monospace; }
@media print { body { padding: 0; } h2 { break-after: avoid; } figure { break-inside: avoid; } }
"""


def write_report(director: Director, folder: Path, *, run: str = "", status: str = "RUNNING") -> Path:
    """Writes `report.html`, and each figure as a PNG, into a folder.

    Args:
        director: only read.
        run: the sweep's id.
        status: as in MLflow.

    Returns:
        The page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = [_head(director, run, status)]
    if summary.measured(director):
        told = importance(director)
        drawings = [
            figures.draw_progress(director, folder),
            figures.draw_curves(director, folder),
            draw_settings(director, folder, told),
        ]
        if told.shares:
            drawings.append(figures.draw_importance(folder, told))
        parts += [_figure(drawing) for drawing in drawings]
        if not told.shares:
            parts.append(f"<h2>Which settings mattered cannot be told</h2>{_p(told.reason)}")
        parts.append(_best(director))
    parts += [_counts(director), _crashes(director), _settings(director)]
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{_text(run or director.sweep.name)}</title><style>{_CSS}</style></head>\n"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )
    path = folder / "report.html"
    beside = folder / ".report.html"
    beside.write_text(page, encoding="utf-8")
    os.replace(beside, path)
    return path


def _head(director: Director, run: str, status: str) -> str:
    sweep, best, steps = director.sweep, director.best, summary.steps(director)
    count = summary.counts(director)
    lead = "No trial was measured, so there is nothing to compare yet."
    if director.history and not summary.measured(director):
        lead = f"No trial's {sweep.metric} is a number now: all that were measured are NaN or without bounds."
    if best is not None and best.value is not None and math.isfinite(best.value):
        lead = (
            f"The best {sweep.metric} is <b>{short(best.value)}</b>, of trial {best.number} after "
            f"{summary.many(best.epoch, 'epoch')}."
        )
        if best.status != "done" and count.get("done", 0) == 0:
            lead += " No trial has been trained to its end."
    goal = "largest" if sweep.mode == "max" else "smallest"
    facts = {
        "trials begun": f"{len(director.trials):,} of {sweep.trials:,}",
        "trained to the end": f"{count.get('done', 0):,}",
        "failed": f"{count.get('failed', 0):,}",
        "epochs trained": f"{steps[-1].epochs:,}" if steps else "0",
        "time training": summary.clock_text(steps[-1].seconds) if steps else "0 s",
    }
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    kind = f"{sweep.searcher.name} search, {sweep.scheduler.name} scheduler"
    return (
        f"<h1>Sweep {_text(sweep.name)}</h1>"
        f'<p class="soft">{_text(run)}{" · " if run else ""}{_text(status.lower())} · {kind} · the {goal} '
        f'{_text(sweep.metric)} is the best</p><p class="lead">{lead}</p>{_test(director)}'
        f'<dl class="facts">{rows}</dl>'
    )


def _test(director: Director) -> str:
    """Whether the test set stayed out of the choice."""
    testers, found = director.testers, director.test
    if not testers:
        return _p("The test set has not been touched.")
    text = f"The test set was touched once, by trial {testers[0]}"
    if len(testers) > 1:
        rest = ", ".join(map(str, testers[1:]))
        text = (
            f"The test set was touched {len(testers)} times, for the sweep was extended: first by trial "
            f"{testers[0]}, then by {rest}"
        )
    shown = [f"{name} {short(v)}" for name, v in sorted((found or {}).items()) if name.startswith("test/")]
    return _p(f"{text}: {', '.join(shown)}." if shown else f"{text}, which gave no figure.")


def _figure(drawn: figures.Drawn) -> str:
    return (
        f'<h2>{_text(drawn.title)}</h2><figure><img src="{drawn.svg}" alt="{_text(drawn.title)}"/>'
        f"<figcaption>{_text(drawn.caption)}</figcaption></figure>"
    )


def _best(director: Director) -> str:
    best = director.best
    assert best is not None, "somebody was measured"
    tree = space.parse(director.sweep.space)[0]
    ranked = [t for t in director.ranked() if t.value is not None and not math.isnan(t.value)]
    top = [best, *[trial for trial in ranked if trial is not best]][:_BEST]
    keys = list(axes.axes(tree))
    apart = len(keys) <= _MOST_KEYS
    rows = []
    for trial in top:
        values = dict(axes.drawn(tree, trial.settings))
        told = [short(values[key]) if key in values else _NONE for key in keys]
        if not apart:
            told = [" ".join(f"{key[0]}={short(value)}" for key, value in values.items())]
        rows.append(
            [
                trial.number,
                trial.status,
                trial.epoch,
                short(trial.value),
                f"{trial.seconds:,.1f}",
                trial.crashes,
                *told,
            ]
        )
    names = [key[0] for key in keys] if apart else ["settings"]
    titles = ["trial", "status", "epoch", director.sweep.metric, "seconds", "crashes", *names]
    head = "The best trial" if len(top) == 1 else f"The best {len(top)} trials"
    note = "Those that were trained furthest come first: values after unequal training do not compare."
    return (
        f"<h2>{head}</h2>{_table(titles, rows, best=True)}{_p(note) if len(top) > 1 else ''}"
        f"<h2>The best trial’s settings</h2><pre>{_text(yaml.dump(best.settings))}</pre>"
    )


def _counts(director: Director) -> str:
    words = {
        "done": "trained to the end",
        "stopped": "stopped early",
        "waits": "waiting at a rung",
        "running": "running, or cut off",
        "failed": "failed",
    }
    count = summary.counts(director)
    by_status = _table(["status", "trials"], [[words[name], count[name]] for name in words if name in count])
    if not director.trials:
        by_status = _p("No trial was begun.")
    rows = [
        [
            rung.epoch,
            rung.trials,
            _NONE if rung.best is None else short(rung.best),
            _NONE if rung.trial is None else rung.trial,
        ]
        for rung in summary.rungs(director)
    ]
    by_rung = _table(["epoch", "trials measured", f"best {director.sweep.metric}", "of trial"], rows)
    by_rung = by_rung if rows else _p("No trial was measured.")
    return (
        f'<div class="side"><section><h2>How trials ended</h2>{by_status}</section>'
        f"<section><h2>How far trials came</h2>{by_rung}</section></div>"
    )


def _crashes(director: Director) -> str:
    causes: dict[str, list[Trial]] = {}
    for trial in director.trials.values():
        if trial.crashes:
            causes.setdefault(trial.cause, []).append(trial)
    if not causes:
        return ""
    rows = []
    for cause, trials in sorted(causes.items(), key=lambda item: -len(item[1])):
        numbers = ", ".join(str(trial.number) for trial in trials[:8]) + (" …" if len(trials) > 8 else "")
        failed = sum(trial.status == "failed" for trial in trials)
        rows.append([sum(trial.crashes for trial in trials), failed, numbers, cause])
    more = f"{len(rows) - _CAUSES} further causes are left out." if len(rows) > _CAUSES else ""
    total = sum(trial.crashes for trials in causes.values() for trial in trials)
    note = (
        "A trial that crashed goes on from its last checkpoint while it has retries. Of several causes in a "
        f"trial, the last is shown. {more}"
    )
    titles = ["crashes", "trials failed", "trials", "cause"]
    head = summary.many(total, "crash", "crashes")
    return f"<h2>{head}</h2>{_table(titles, rows[:_CAUSES])}{_p(note)}"


def _settings(director: Director) -> str:
    told = director.sweep.model_dump(mode="json", exclude_none=True)
    return f"<h2>The sweep’s settings</h2><pre>{_text(yaml.dump(told))}</pre>"


def _table(titles: Sequence[str], rows: Sequence[Sequence[Any]], *, best: bool = False) -> str:
    """A table; columns of numbers are set to the right.

    Args:
        best: whether the first row is the best trial's.
    """
    sides = [' class="number"' if all(map(_numeric, column)) else "" for column in zip(*rows, strict=True)]

    def cells(tag: str, row: Sequence[Any]) -> str:
        pairs = zip(sides or [""] * len(row), row, strict=True)
        return "".join(f"<{tag}{side}>{_text(str(value))}</{tag}>" for side, value in pairs)

    kinds = [' class="best"' if best else "", *[""] * len(rows)]
    body = "".join(f"<tr{kind}>{cells('td', row)}</tr>" for kind, row in zip(kinds, rows, strict=False))
    head = f"<thead><tr>{cells('th', titles)}</tr></thead>"
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'


def _numeric(value: Any) -> bool:
    try:
        float(str(value).replace(",", "").replace(_NONE, "0"))
    except ValueError:
        return False
    return True


def _p(text: str) -> str:
    return f'<p class="soft">{_text(text)}</p>'


def _text(text: str) -> str:
    """Text for HTML; control characters, which a cause may have, are no text."""
    return html.escape("".join(c for c in text if c.isprintable() or c in "\n\t"))
