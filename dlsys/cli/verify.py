"""`verify`: prove that strategies compute the same thing."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from dlsys.cli import files
from dlsys.cli.output import AsJson, give
from dlsys.cli.report import markdown, table
from dlsys.errors import RunError, UsageError
from dlsys.spec.ready import find

if TYPE_CHECKING:
    from dlsys.jobs.verify import Row

_TITLES = [
    "STRATEGY",
    "WORKERS",
    "LOSS",
    "GRAD NORM",
    "WEIGHTS",
    "STEPS/S",
    "MB/RANK",
    "SENT KB/STEP",
    "VERDICT",
]


def verify(
    file: files.File,
    overrides: files.Overrides = None,
    strategies: Annotated[
        str, typer.Option(help="all, or names with commas between: ddp,fsdp,zero:stage=3")
    ] = "all",
    steps: Annotated[int, typer.Option(min=1, help="Updates of each run.")] = 50,
    workers: Annotated[str, typer.Option(help="Numbers of workers, with commas between.")] = "2",
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster; by default RAY_ADDRESS, or a Ray of its own.")
    ] = None,
    as_json: AsJson = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a table for a document.")] = False,
) -> None:
    """Prove that strategies compute what one worker computes (exit code 1 if one does not)."""
    from dlsys.jobs import verify as proof

    try:
        counts = [int(text) for text in workers.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise UsageError(f"--workers: {workers!r} is not numbers such as 2 or 2,4")
    address = address or os.environ.get("RAY_ADDRESS") or None
    cpus = proof.machine_cpus() if address is None else float("inf")
    todo = proof.cases(find(file), overrides or (), strategies, steps, counts, cpus)
    run_id, rows = proof.verify(todo, address=address, note=lambda text: print(text, file=sys.stderr))
    if as_json:
        give({"run": run_id, "rows": [asdict(row) for row in rows]})
    else:
        show = markdown if as_markdown else table
        print(show(_TITLES, [_cells(row) for row in rows]))
        if as_markdown:
            print()
        for row in rows:
            if row.why:
                print(f"{row.strategy} × {row.workers}: {row.why}")
    print(f"Look it up:   dlsys runs show {run_id}", file=sys.stderr)
    if bad := [row for row in rows if row.bad]:
        raise RunError(f"{len(bad)} of {len(rows) - 1} do not compute what one worker computes")


def _cells(row: Row) -> list[str]:
    def figure(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    return [
        row.strategy,
        str(row.workers),
        figure(row.loss, ".1e"),
        figure(row.grad_norm, ".1e"),
        figure(row.weight, ".1e"),
        figure(row.steps_per_second, ".0f"),
        figure(max(row.peak_memory_mb, default=None), ".0f"),
        figure(row.sent_bytes / 1e3 if row.sent_bytes is not None else None, ",.0f"),
        row.verdict if row.first_step is None else f"{row.verdict} from step {row.first_step}",
    ]
