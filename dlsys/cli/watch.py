"""`runs watch`: a run that another terminal or another machine trains, while it goes on."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from dlsys.cli.options import Uri
from dlsys.errors import TrackingError, UsageError
from dlsys.paths import RunPaths, read_json
from dlsys.track.runs import listed, one_of, row_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from dlsys.jobs.standing import Standing

_PAUSE = 0.5
_LINE_EVERY = 5.0
_ENDED = ("FINISHED", "FAILED", "KILLED", "LOST")


class Seen(NamedTuple):
    """A run at one moment.

    Attributes:
        status: as in MLflow; or what a cluster's queue says, WAITING, or LOST.
        why: it has that status; may be empty.
        line: its figures in a line.
        drawn: the same for a terminal.
    """

    status: str
    why: str
    line: str
    drawn: RenderableType


Look = Callable[[], Seen]


def watch(
    run: Annotated[
        str | None,
        typer.Argument(help="The beginning of a run's id; by default the newest that goes on."),
    ] = None,
    uri: Uri = None,
) -> None:
    """Watch a run, a sweep or a trial until it ends: exit code 0 if it ended well, else 1."""
    from rich.console import Console

    run_id, look = _found(run, uri)
    try:
        seen = _follow(run_id, look, Console(highlight=False))
    except KeyboardInterrupt:
        print(f"{run_id} goes on", file=sys.stderr)
        raise
    if seen.status == "LOST":
        print(f"Give it its end in MLflow: dlsys runs sync {run_id}", file=sys.stderr)
    if seen.status != "FINISHED":
        raise typer.Exit(1)


def _follow(run_id: str, look: Look, console: Any) -> Seen:
    """Shows a run over and over on a terminal, and elsewhere a line when it has come further."""
    from contextlib import nullcontext

    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    seen, said, told = look(), -math.inf, ""
    with Live(console=console, auto_refresh=False) if console.is_terminal else nullcontext() as live:
        while True:
            began, ended = time.monotonic(), seen.status in _ENDED
            title = f"{run_id}  {seen.status}{f': {seen.why}' if seen.why else ''}"
            line = f"{title}  {seen.line}".rstrip()
            if live:
                live.update(Group(Text(title), seen.drawn), refresh=True)
            elif line != told and (ended or began - said > _LINE_EVERY):
                print(line, flush=True)
                said, told = began, line
            if ended:
                return seen
            time.sleep(_PAUSE)
            began = time.monotonic()
            try:
                seen = look()
            except TrackingError as error:  # it may come back
                seen = seen._replace(why=str(error))
            # A store far away, or a sweep of a thousand trials, is not asked without end.
            time.sleep(min(9 * (time.monotonic() - began), 10.0))


def _found(prefix: str | None, uri: str | None) -> tuple[str, Look]:
    """The id of the run, and what looks at it: its folder, or where that is elsewhere MLflow.

    Raises:
        UsageError: no such run, or several; or none that goes on.
    """
    here = RunPaths.fitting(prefix) if prefix else _running()
    if uri is None and prefix and here:
        here = [RunPaths.find(prefix)]
    if uri is None and here:
        if len(here) > 1:
            others = ", ".join(paths.id for paths in here[:-1])
            print(f"the newest; {others} go{'es' if len(here) == 2 else ''} on, too", file=sys.stderr)
        return here[-1].id, _of_folder(here[-1])
    if prefix:
        found = one_of(listed(uri, 1000, prefix), prefix)
        return row_of(found)["run"], _of_store(uri, found.info.run_id)
    # What has its folder here would have been found there, if it went on.
    for found in listed(uri, 100):
        run_id = row_of(found)["run"]
        if found.info.status == "RUNNING" and not (uri is None and RunPaths.fitting(run_id)):
            return run_id, _of_store(uri, found.info.run_id)
    raise UsageError("no run goes on now", hint="Say which: dlsys runs watch RUN. All: dlsys runs list")


def _running() -> list[RunPaths]:
    from dlsys.jobs.standing import fate

    return [paths for paths in RunPaths.all() if fate(paths)[0] == "RUNNING"]


def _of_folder(paths: RunPaths) -> Look:
    from dlsys.jobs.drawing import view
    from dlsys.jobs.standing import Spooled, fate
    from dlsys.jobs.sweep import ledger_of
    from dlsys.spec.script.job import ScriptJob

    if ledger_of(paths).exists():
        return _of_sweep(paths)
    job = _job(paths)
    spooled = Spooled(paths, job)

    def look() -> Seen:
        status, why = fate(paths)  # before its figures: behind the end come none
        standing: Standing = spooled
        known = read_json(paths.mlflow) or {}
        if isinstance(job, ScriptJob):
            if "run_id" in known:
                standing = _standing(known["uri"], known["run_id"])[0]
        else:
            for _ in spooled.read():
                pass
        return Seen(status, why, standing.line if standing.latest else "", view(standing))

    return look


def _job(paths: RunPaths) -> Any:
    """A run's job; None of one without, such as a proof, or of a version of dlsys that is not known here."""
    from dlsys.spec import yaml
    from dlsys.spec.earlier import as_now
    from dlsys.spec.kinds import job_of

    # A validation's error is a ValueError.
    with suppress(OSError, ValueError, KeyError):
        return job_of(as_now(yaml.read(paths.spec.read_text(encoding="utf-8"), str(paths.spec)).data))
    return None


def _of_sweep(paths: RunPaths) -> Look:
    from dlsys.cli import live
    from dlsys.jobs.standing import fate
    from dlsys.jobs.sweep import ledger_of
    from dlsys.spec.load import LoadedSweep, load_any
    from dlsys.tune.director import Director
    from dlsys.tune.ledger import Ledger

    loaded = load_any(paths.spec, folder=paths.root, there="none")
    assert isinstance(loaded, LoadedSweep), "a sweep's folder holds a sweep"

    def look() -> Seen:
        status, why = fate(paths)
        director = Director(loaded.sweep, loaded.job.job, Ledger(ledger_of(paths), read_only=True))
        began = (read_json(paths.owner) or {}).get("created", time.time())
        until = paths.outcome.stat().st_mtime if paths.outcome.exists() else time.time()
        return Seen(status, why, live.line(director), live.view(director, max(until - began, 0.0)))

    return look


def _of_store(uri: str | None, mlflow_run: str) -> Look:
    from dlsys.jobs.drawing import view
    from dlsys.track.record import usual_uri

    place = uri or usual_uri()

    def look() -> Seen:
        standing, run = _standing(place, mlflow_run)
        why = run.data.tags.get("dlsys.cause", "")
        return Seen(run.info.status, why, standing.line if standing.latest else "", view(standing))

    return look


def _standing(uri: str, mlflow_run: str) -> tuple[Standing, Any]:
    """What MLflow has of a run, and the run."""
    from dlsys.jobs.standing import Standing
    from dlsys.track.store import Store

    store = Store(uri)
    found = store.runs(limit=1, prefix=mlflow_run)
    if not found:
        raise UsageError(f"{mlflow_run}: is deleted in MLflow")
    run = found[0]
    standing, steps = Standing(None), dict[int, dict[str, float]]()
    for name in filter(standing.shows, sorted(run.data.metrics)):
        for step, value in store.history(mlflow_run, name):
            steps.setdefault(step, {})[name] = value
    for step in sorted(steps):
        standing.add(step, steps[step])
    standing.latest.update(run.data.metrics)
    return standing, run
