"""`jobs`: what was sent to clusters, and what became of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any

import typer

from dlsys.cli.options import Cluster
from dlsys.cli.output import AsJson, give
from dlsys.cli.report import table
from dlsys.errors import UsageError
from dlsys.jobs.desk.states import ENDED

app = typer.Typer(help="Watch, stop and retry jobs on clusters.", no_args_is_help=True)
Id = Annotated[str, typer.Argument(metavar="JOB", help="The beginning of a job's id.")]
ByExit = Annotated[
    bool,
    typer.Option("--exit-code", help="0 succeeded, 100 failed, 101 not ended, 102 not found, 103 stopped."),
]

_CODES = {"SUCCEEDED": 0, "FAILED": 100, "STOPPED": 103}
_NOT_ENDED, _NOT_FOUND = 101, 102
_LONG_LOOK = 30.0


@app.command("list")
def list_jobs(
    cluster: Cluster = None,
    everything: Annotated[bool, typer.Option("--all", help="Also jobs of clusters that are gone.")] = False,
    as_json: AsJson = False,
) -> None:
    """List a cluster's jobs: those that have not ended in the order of their turn, then the latest."""
    found = _kept() if everything else _jobs(cluster)
    if as_json:
        give(found)
        return
    if not found:
        print("no jobs yet: dlsys submit quickstart")
        return
    active = [job for job in found if job["state"] not in ENDED]
    active.sort(key=lambda job: (-job["priority"], job["submitted"]))
    ended = sorted((job for job in found if job["state"] in ENDED), key=lambda job: -(job["ended"] or 0))
    rows = [
        [job["id"], job["state"], str(job["priority"]), _when(job["submitted"]), _took(job), job["reason"]]
        for job in [*active, *ended]
    ]
    print(table(["JOB", "STATE", "PRIORITY", "SUBMITTED", "RAN", ""], rows))


@app.command()
def status(job: Id, cluster: Cluster = None, by_exit: ByExit = False, as_json: AsJson = False) -> None:
    """Show one job."""
    from dlsys.plan.cost import line

    found = _found(job, cluster, by_exit)
    if as_json:
        give(found)
    else:
        for key in ("id", "state", "reason", "cluster", "kind", "priority", "attempt", "exit_code"):
            if found.get(key) not in (None, ""):
                print(f"{key:10} {found[key]}")
        print(f"submitted  {_when(found['submitted'])}\nran        {_took(found)}")
        if found.get("cost"):
            print(f"cost       {line(found['cost'])}")
    if by_exit:
        raise typer.Exit(_CODES.get(found["state"], _NOT_ENDED))


@app.command()
def logs(
    job: Id,
    cluster: Cluster = None,
    following: Annotated[bool, typer.Option("-f", "--follow", help="Until the job has ended.")] = False,
    rank: Annotated[int | None, typer.Option(min=0, help="The log of one worker.")] = None,
) -> None:
    """Print a job's log; the cluster may be gone."""
    with _desk(cluster, job) as desk:
        if desk is None:
            _print_kept(job, rank)
            return
        try:
            for piece in desk.logs(job, rank=rank, follow=following):
                sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
        except KeyboardInterrupt:
            _say("\nthe job goes on")


@app.command()
def stop(job: Id, cluster: Cluster = None) -> None:
    """End a job: in the queue at once, a running one after a last checkpoint."""
    with _desk(cluster) as desk:
        found = desk.stop(job)
        _say(f"{found['id']} {'is being stopped' if found['asked'] else 'is ' + found['state']}")


@app.command()
def wait(
    job: Id,
    cluster: Cluster = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds; by default for ever.")] = None,
    by_exit: ByExit = False,
) -> None:
    """Wait for a job to end: exit code 0 if it succeeded, else 1; with --exit-code 100, 101, 102 or 103."""
    deadline = None if timeout is None else time.monotonic() + timeout
    from dlsys.jobs.client import NotFoundError

    with _desk(cluster) as desk:
        try:
            state = _await(desk, job, deadline)
        except NotFoundError as error:
            _say(f"dlsys: {error}")
            raise typer.Exit(_NOT_FOUND if by_exit else error.exit_code) from error
    print(state)
    raise typer.Exit(_CODES.get(state, _NOT_ENDED) if by_exit else int(state != "SUCCEEDED"))


@app.command()
def retry(job: Id, cluster: Cluster = None) -> None:
    """Put a job that has ended back into the queue: it goes on from its last checkpoint."""
    with _desk(cluster) as desk:
        print(desk.retry(job)["id"])


def follow(desk: Any, job_id: str) -> int:
    """Prints a job's log until it ends; the exit code of `submit`. Ctrl-C leaves the job alone."""
    try:
        found = desk.job(job_id)
        told = ""
        while found["state"] in ("QUEUED", "PENDING", "PAUSED"):
            text = f"{found['state']} {found['reason']}".strip()
            if text != told and found["state"] != "PENDING":
                _say(text)
                told = text
            found = desk.job(job_id, after=found["change"], wait=_LONG_LOOK)
        for piece in desk.logs(job_id, follow=True):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        found = desk.job(job_id)
    except KeyboardInterrupt:
        _say(f"\nthe job goes on: dlsys jobs logs -f {job_id}, or dlsys jobs stop {job_id}")
        return 130
    _say(f"{job_id} {found['state']}{': ' + found['reason'] if found['reason'] else ''}")
    return 0 if found["state"] == "SUCCEEDED" else 1


def _await(desk: Any, job: str, deadline: float | None) -> str:
    found = desk.job(job)
    while found["state"] not in ENDED:
        left = _LONG_LOOK if deadline is None else min(_LONG_LOOK, deadline - time.monotonic())
        if left <= 0:
            break
        found = desk.job(found["id"], after=found["change"], wait=left)
    return str(found["state"])


@contextmanager
def _desk(cluster: str | None, job: str | None = None) -> Iterator[Any]:
    """The cluster's desk; None where it is gone and what it kept is asked for."""
    from dlsys.cluster.places import choose
    from dlsys.cluster.reach import reach
    from dlsys.jobs.client import Desk

    try:
        paths = choose(cluster)
    except UsageError:
        if job is None or cluster is not None:
            raise
        yield None
        return
    with reach(paths) as endpoint:
        yield Desk(endpoint, paths.name)


def _jobs(cluster: str | None) -> list[dict[str, Any]]:
    with _desk(cluster) as desk:
        return list(desk.jobs())


def _kept() -> list[dict[str, Any]]:
    """What the desks of all clusters that keep their runs here have written down."""
    from dlsys.cluster.places import ClusterPaths
    from dlsys.jobs.desk.book import all_jobs

    found = []
    for job in (job.to_dict() for job in all_jobs()):
        if job["state"] not in ENDED and not ClusterPaths.of(job["cluster"]).source.exists():
            job["reason"] = f"cluster {job['cluster']} is gone; it goes on when that is up again"
        found.append(job)
    return found


def _found(job: str, cluster: str | None, by_exit: bool) -> dict[str, Any]:
    from dlsys.jobs.client import NotFoundError
    from dlsys.jobs.cost import described
    from dlsys.jobs.desk.book import paths_of

    try:
        with _desk(cluster, job) as desk:
            if desk is not None:
                return dict(desk.job(job))
        fitting = [found for found in _kept() if found["id"].startswith(job)]
        if len(fitting) != 1:
            raise NotFoundError(f"no job {job!r}" if not fitting else f"{job!r} fits {len(fitting)} jobs")
        return {**fitting[0], "cost": described(paths_of(fitting[0]["id"]))}
    except NotFoundError as error:
        if not by_exit:
            raise
        _say(f"dlsys: {error}")
        raise typer.Exit(_NOT_FOUND) from error


def _print_kept(job: str, rank: int | None) -> None:
    from dlsys.paths import RunPaths

    paths = RunPaths.find(job)
    path = paths.logs / "driver.log" if rank is None else paths.log(rank)
    if not path.exists():
        raise UsageError(f"{paths.id} has no {path.name}", hint=f"Its logs: {paths.logs}")
    sys.stdout.buffer.write(path.read_bytes())


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).isoformat(" ", "seconds")


def _took(job: dict[str, Any]) -> str:
    ran = job["ran"] + (time.time() - job["since"] if job["since"] else 0)
    return f"{ran:.0f} s" if job["started"] else ""


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
