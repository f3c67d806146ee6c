"""`run`: train here and now."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from dlsys.cli import files
from dlsys.cli.output import AsJson, give
from dlsys.cli.report import report_end
from dlsys.errors import DlsysError, UsageError
from dlsys.spec.ready import find


def run(
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="A job file, or the name of a ready one.")
    ] = None,
    overrides: files.Overrides = None,
    resume: Annotated[
        str | None,
        typer.Option("--resume", metavar="RUN", help="Continue this run from its last checkpoint."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster; by default RAY_ADDRESS, or a Ray of its own.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a job here and now, tracked in MLflow."""
    from dlsys.jobs import run as runs
    from dlsys.jobs.moved import folder_of
    from dlsys.jobs.progress import Progress
    from dlsys.paths import RunPaths
    from dlsys.spec.load import LoadedCluster, LoadedSweep, load, load_any

    address = address or os.environ.get("RAY_ADDRESS") or None
    if resume is not None:
        # With --resume the file is known, and every argument is an override.
        changes = [*([file] if file else []), *(overrides or [])]
        if wrong := [text for text in changes if "=" not in text]:
            raise UsageError(f"{wrong[0]}: with --resume, give only overrides (stop.epochs=20)")
        recalled(resume)
        paths = RunPaths.find(resume)
        loaded = load(paths.spec, changes, folder=folder_of(paths))
        runs.reopen(paths, loaded)
    else:
        if file is None:
            raise UsageError("which job? Give a file or a ready name: dlsys run quickstart")
        found = load_any(find(file), overrides or ())
        if isinstance(found, LoadedSweep):
            from dlsys.cli import sweep
            from dlsys.jobs import sweep as sweeps
            from dlsys.jobs.sweep_sizes import check_here

            if address is None:
                check_here(found)
            sweep.execute(sweeps.prepare(found), found, address, as_json)
            return
        if isinstance(found, LoadedCluster):
            raise UsageError(
                f"{file}: is a kind: cluster file, which is brought up and not run",
                hint=f"Bring it up: dlsys cluster up {file}",
            )
        loaded = found
        paths = runs.prepare(loaded)
    progress = Progress(paths, loaded.job)
    with progress:
        ended = runs.execute(
            paths,
            loaded.job,
            address=address,
            note=progress.say,
            farewell=lambda ended: tell(ended, as_json),
        )
    tell(ended, as_json)
    if isinstance(ended.error, DlsysError):
        raise typer.Exit(ended.error.exit_code)


def tell(ended: Any, as_json: bool) -> None:
    """How a run ended: its error first, then what it has come to."""
    report_end(ended.error)
    summarize(ended, as_json)


def recalled(prefix: str) -> None:
    """Brings runs here that only the object store has, where there is one."""
    if store := os.environ.get("DLSYS_STORE"):
        from dlsys.jobs.mirror.recall import recall
        from dlsys.paths import home

        try:
            recall(store, home(), prefix)
        except OSError as error:
            raise UsageError(str(error), hint="Mend it, or unset DLSYS_STORE.") from error


def summarize(ended: Any, as_json: bool) -> None:
    """The closing table, and what to do next."""
    if as_json:
        give(
            {
                "run": ended.run_id,
                "status": ended.status,
                "reason": ended.reason,
                "step": ended.step,
                "seconds": round(ended.seconds, 3),
                "attempts": ended.attempts,
                "metrics": ended.metrics,
            }
        )
    else:
        status = ended.status
        rows = {"run": ended.run_id}
        rows["status"] = status if ended.reason in ("finished", "error") else f"{status} ({ended.reason})"
        for name in sorted(ended.metrics):
            if name.partition("/")[0] in ("valid", "test") or name.startswith("train/loss"):
                rows[name] = f"{ended.metrics[name]:.4g}"
        rows["steps"] = f"{ended.step:,}"
        rows["time"] = f"{ended.seconds:.1f} s, of which training {ended.trained:.1f} s"
        if ended.attempts > 1:
            rows["attempts"] = str(ended.attempts)
        width = max(map(len, rows))
        for name, value in rows.items():
            print(f"{name:{width}}  {value}")
    lines = []
    if ended.status == "FINISHED":
        lines += ["See it:       dlsys ui", f"Look it up:   dlsys runs show {ended.run_id}"]
    else:
        if ended.resumable:
            lines.append(f"Continue it:  dlsys run --resume {ended.run_id}")
        lines.append(f"Look it up:   dlsys runs show {ended.run_id}")
    if ended.unsent:
        lines.append(ended.unsent)
    if not ended.delivered:
        lines.append(f"MLflow has not taken everything yet; later: dlsys runs sync {ended.run_id}")
    print("\n".join(lines), file=sys.stderr)
