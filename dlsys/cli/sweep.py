"""`sweep`: look at sweeps, take them up again, and make them longer."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from dlsys.cli.output import AsJson, give
from dlsys.cli.report import report_end, settings_text, table
from dlsys.errors import DlsysError, UsageError

app = typer.Typer(help="Look at sweeps, resume and extend them.", no_args_is_help=True)
Id = Annotated[str, typer.Argument(metavar="ID", help="The beginning of a sweep's id.")]
Address = Annotated[
    str | None, typer.Option(help="A running Ray cluster; by default RAY_ADDRESS, or a Ray of its own.")
]


def execute(paths: Any, loaded: Any, address: str | None, as_json: bool, more: int = 0) -> None:
    """Runs a sweep, says how it ended, and leaves with its exit code."""
    from rich.console import Console

    from dlsys.cli.live import LiveSweep
    from dlsys.jobs import sweep as sweeps

    console = Console(stderr=True, highlight=False)
    console.print(f"sweep {paths.id}")

    def tell(ended: Any) -> None:
        report_end(ended.error)
        _summarize(ended, loaded.sweep.metric, as_json)

    with LiveSweep(console) if console.is_terminal else nullcontext() as live:
        ended = sweeps.execute(
            paths,
            loaded,
            address=address,
            note=lambda text: console.print(text, markup=False, soft_wrap=True),
            watch=live.update if live else None,
            more=more,
            farewell=tell,
        )
    tell(ended)
    if isinstance(ended.error, DlsysError):
        raise typer.Exit(ended.error.exit_code)


def _summarize(ended: Any, metric: str, as_json: bool) -> None:
    best = ended.best
    if as_json:
        row = {
            "sweep": ended.run_id,
            "status": ended.status,
            "trials": ended.trials,
            "epochs": ended.epochs,
            "seconds": round(ended.seconds, 3),
            "best": _row(best) if best else None,
            "test": ended.test,
        }
        give(row)
    else:
        rows = {"sweep": ended.run_id, "status": ended.status}
        rows["trials"] = ", ".join(f"{count} {status}" for status, count in sorted(ended.trials.items()))
        rows["epochs"] = f"{ended.epochs:,}"
        if best:
            rows["best"] = f"{metric} {best.value:.4g}, trial {best.number} after {best.epoch} epochs"
            rows["settings"] = settings_text(best.settings)
        for name, value in sorted((ended.test or {}).items()):
            if name.startswith("test/"):
                rows[name] = f"{value:.4g}"
        rows["time"] = f"{ended.seconds:.1f} s"
        width = max(map(len, rows))
        for name, text in rows.items():
            print(f"{name:{width}}  {text}")
    lines = [f"Its trials:   dlsys sweep trials {ended.run_id}"]
    if ended.status == "FINISHED":
        lines.append(f"The best job: dlsys sweep best {ended.run_id} > best.yaml")
    elif ended.status == "KILLED":
        lines.append(f"Continue it:  dlsys sweep resume {ended.run_id}")
    else:
        lines.append(f"More trials:  dlsys sweep extend {ended.run_id} --trials +20")
    if ended.report is not None:
        lines.append(f"Its report:   {ended.report}")
    lines.append(f"See it:       dlsys ui {ended.run_id}")
    if not ended.delivered:
        lines.append(f"MLflow has not taken everything yet; later: dlsys runs sync {ended.run_id}")
    print("\n".join(lines), file=sys.stderr)


def _row(trial: Any) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "status": trial.status,
        "epoch": trial.epoch,
        "value": trial.value,
        "seconds": round(trial.seconds, 2),
        "crashes": trial.crashes,
        "cause": trial.cause,
        "settings": trial.settings,
    }


@app.command("list")
def list_sweeps(as_json: AsJson = False) -> None:
    """List the sweeps of this folder, newest first."""
    from dlsys.jobs import sweep as sweeps
    from dlsys.paths import RunPaths, read_json

    rows = []
    for paths in reversed([run for run in RunPaths.all() if sweeps.ledger_of(run).exists()]):
        outcome = read_json(paths.outcome) or {}
        found = sweeps.look(paths)
        best = found.best
        rows.append(
            {
                "sweep": paths.id,
                "status": outcome.get("status", "RUNNING"),
                "trials": len(found.trials),
                "of": found.sweep.trials,
                "best": best.value if best else None,
            }
        )
    if as_json:
        give(rows)
        return
    if not rows:
        print("no sweeps yet: dlsys run tune/lenet5_asha")
        return
    lines = [
        [
            row["sweep"],
            row["status"],
            f"{row['trials']}/{row['of']}",
            "" if row["best"] is None else f"{row['best']:.4g}",
        ]
        for row in rows
    ]
    print(table(["SWEEP", "STATUS", "TRIALS", "BEST"], lines))


@app.command()
def trials(sweep: Id, as_json: AsJson = False) -> None:
    """List a sweep's trials, the best first."""
    from dlsys.jobs import sweep as sweeps
    from dlsys.paths import RunPaths

    found = sweeps.look(RunPaths.find(sweep))
    rows = [_row(trial) for trial in found.ranked()]
    if as_json:
        give(rows)
        return
    titles = ["TRIAL", "STATUS", "EPOCH", found.sweep.metric, "SETTINGS"]
    lines = [
        [
            str(row["trial"]),
            row["status"],
            str(row["epoch"]),
            "" if row["value"] is None else f"{row['value']:.4g}",
            settings_text(row["settings"]) + (f"  ({row['cause']})" if row["cause"] else ""),
        ]
        for row in rows
    ]
    print(table(titles, lines))


@app.command()
def best(sweep: Id, as_json: AsJson = False) -> None:
    """Print the best trial's job, a file ready to run."""
    from dlsys.jobs import sweep as sweeps
    from dlsys.paths import RunPaths

    paths = RunPaths.find(sweep)
    found = sweeps.look(paths)
    if found.best is None:
        raise UsageError(f"{paths.id}: no trial was measured yet")
    if as_json:
        give(_row(found.best))
        return
    print(sweeps.best_file(sweeps.reopen(paths), found.best), end="")


@app.command("report")
def report_anew(
    sweep: Id,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where to; by default among the sweep's own files.")
    ] = None,
) -> None:
    """Write a sweep's report anew: a page, and its figures as files."""
    from dlsys.jobs import sweep as sweeps
    from dlsys.paths import RunPaths, read_json
    from dlsys.tune.report import write_report

    paths = RunPaths.find(sweep)
    status = (read_json(paths.outcome) or {}).get("status", "RUNNING")
    folder = out or paths.artifacts
    try:
        print(write_report(sweeps.look(paths), folder, run=paths.id, status=status))
    except OSError as error:
        raise UsageError(f"{folder}: no report can be written there: {error.strerror}") from error


@app.command()
def resume(
    sweep: Id,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Take a sweep up again where it was cut off."""
    _again(sweep, tuple(overrides or ()), address, as_json, 0)


@app.command()
def extend(
    sweep: Id,
    trials: Annotated[str, typer.Option(metavar="+N", help="How many more.")],
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Add trials to a sweep, which learns from those it has."""
    more = trials.removeprefix("+")
    if not more.isdecimal() or int(more) < 1:
        raise UsageError(f"--trials: how many more, such as +20, got {trials!r}")
    _again(sweep, (), address, as_json, int(more))


def _again(sweep: str, changes: tuple[str, ...], address: str | None, as_json: bool, more: int) -> None:
    import os

    from dlsys.jobs import sweep as sweeps
    from dlsys.paths import RunPaths

    paths = RunPaths.find(sweep)
    loaded = sweeps.reopen(paths, changes, there="all")
    execute(paths, loaded, address or os.environ.get("RAY_ADDRESS") or None, as_json, more)
