"""`run`: train here and now."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlsys.cli import command as commands
from dlsys.cli.output import AsJson, give
from dlsys.cli.report import report_end
from dlsys.errors import DlsysError, UsageError
from dlsys.spec.ready import find

if TYPE_CHECKING:
    from dlsys.paths import RunPaths
    from dlsys.spec.load import Loaded
    from dlsys.spec.script.load import LoadedScript


def run(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE [KEY=VALUE]... | [KEY=VALUE]... -- COMMAND...",
            help="A job file or the name of a ready one, or a command.",
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option("--resume", metavar="RUN", help="Continue this run from its last checkpoint."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster; by default RAY_ADDRESS, or a Ray of its own.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="A command's name; by default its script's.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="A command's processes.")] = None,
    experiment: Annotated[str | None, typer.Option(help="A command's MLflow experiment.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train a job here and now, tracked in MLflow: a file, or any script after `--`."""
    from dlsys.jobs import run as runs
    from dlsys.spec.load import LoadedCluster, LoadedSweep, load_any

    cluster = address or os.environ.get("RAY_ADDRESS") or None
    before, command = commands.split(words or [], "run")
    if command is None:
        commands.of_commands_alone({"--name": name, "--workers": workers, "--experiment": experiment})
    options = commands.of_options(workers, experiment)
    loaded: Loaded | LoadedScript
    paths: RunPaths | None = None
    if resume is not None:
        if name is not None:
            raise UsageError("--name: a run that goes on keeps its name: leave it out")
        from dlsys.jobs.resume import take_up

        # The file is known, and every argument is an override.
        given = commands.overrides(before, "With --resume, give only overrides (stop.epochs=20).")
        paths, loaded = take_up(resume, [*options, *given], command)
    elif command is not None:
        loaded = commands.load("run", before, command, name, options)
    else:
        if not before:
            raise UsageError(
                "which job? Give a file or a ready name: dlsys run quickstart",
                hint="Or a script of your own: dlsys run -- python train.py",
            )
        file, *overrides = before
        found = load_any(find(file), overrides)
        if isinstance(found, LoadedSweep):
            from dlsys.cli import sweep
            from dlsys.jobs import sweep as sweeps
            from dlsys.jobs.sweep_sizes import check_here

            if cluster is None:
                check_here(found)
            sweep.execute(sweeps.prepare(found), found, cluster, as_json)
            return
        if isinstance(found, LoadedCluster):
            raise UsageError(
                f"{file}: is a kind: cluster file, which is brought up and not run",
                hint=f"Bring it up: dlsys cluster up {file}",
            )
        loaded = found
    is_script = loaded.job.kind == "script"
    queued = paths is not None and paths.submission.exists()
    if is_script and address is not None:
        raise UsageError(
            "--address: a script runs on this machine: leave it out",
            hint="To a cluster goes: dlsys submit -- python train.py",
        )
    if is_script and not queued:
        cluster = None  # RAY_ADDRESS is the script's own to read
    if paths is None:
        paths = runs.prepare(loaded)
    # What a cluster keeps as a script's log is what the script says.
    carry_out(loaded, paths, cluster, as_json, heard=not (is_script and queued))


def carry_out(
    loaded: Loaded | LoadedScript, paths: RunPaths, cluster: str | None, as_json: bool, heard: bool = True
) -> None:
    """Runs a job whose run is made, and tells how it went.

    Args:
        cluster: the address of a Ray, or None for one of its own.
        heard: whether somebody sees this who does not know the run yet.

    Raises:
        Exit: it failed, with its exit code.
    """
    from dlsys.jobs import run as runs
    from dlsys.jobs.progress import progress_of

    job = loaded.job
    progress = progress_of(paths, job, heard=heard)
    with progress:
        ended = runs.execute(
            paths,
            job,
            address=cluster,
            note=progress.say,
            farewell=lambda ended: tell(ended, job, as_json, heard),
        )
    tell(ended, job, as_json, heard)
    if isinstance(ended.error, DlsysError):
        raise typer.Exit(ended.error.exit_code)


def tell(ended: Any, job: Any, as_json: bool, heard: bool = True) -> None:
    """How a run ended: its error first, then what it has come to.

    Args:
        heard: whether somebody sees this who does not know the run yet.
    """
    report_end(ended.error)
    if heard:
        summarize(ended, job, as_json)
    else:
        print(*(f"{line}\n" for line in _unsent(ended)), sep="", end="", file=sys.stderr)


def summarize(ended: Any, job: Any, as_json: bool) -> None:
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
        is_script = job.kind == "script"
        for name in sorted(ended.metrics):
            if is_script or name.partition("/")[0] in ("valid", "test") or name.startswith("train/loss"):
                rows[name] = f"{ended.metrics[name]:.4g}"
        if is_script:
            rows |= {"last step": f"{ended.step:,}"} if ended.step else {}
            rows["time"] = f"{ended.seconds:.1f} s"
        else:
            rows["steps"] = f"{ended.step:,}"
            rows["time"] = f"{ended.seconds:.1f} s, of which training {ended.trained:.1f} s"
        if ended.attempts > 1:
            rows["attempts"] = str(ended.attempts)
        width = max(map(len, rows))
        for name, value in rows.items():
            print(f"{name:{width}}  {value}")
    lines = []
    if ended.status == "FINISHED":
        lines += [f"See it:       dlsys ui {ended.run_id}", f"Look it up:   dlsys runs show {ended.run_id}"]
    else:
        if ended.resumable:
            lines.append(f"Continue it:  dlsys run --resume {ended.run_id}")
        lines.append(f"Look it up:   dlsys runs show {ended.run_id}")
    print("\n".join([*lines, *_unsent(ended)]), file=sys.stderr)


def _unsent(ended: Any) -> list[str]:
    """What of a run is not yet where it belongs."""
    lines = [ended.unsent] if ended.unsent else []
    if not ended.delivered:
        lines.append(f"MLflow has not taken everything yet; later: dlsys runs sync {ended.run_id}")
    return lines
