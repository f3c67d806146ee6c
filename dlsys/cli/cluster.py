"""`cluster`: machines, up and down."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlsys.cli import files
from dlsys.cli.doctor import tell
from dlsys.cli.output import AsJson, give
from dlsys.cli.report import table
from dlsys.errors import DlsysError, UsageError
from dlsys.jobs.desk.states import ENDED
from dlsys.spec import ready

if TYPE_CHECKING:
    from dlsys.cluster.provider import Finding

app = typer.Typer(help="Bring clusters up and down.", no_args_is_help=True)
Name = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="A cluster's name or file; by default the only one.")
]

# Jobs that are stopped save a checkpoint within this time.
_STOP_WITHIN = 30.0


@app.command()
def up(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A cluster file, or the name of a ready one.")],
    overrides: files.Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be used; touch nothing.")
    ] = False,
) -> None:
    """Bring a cluster to what its file says; again, it changes only what differs."""
    from dlsys.cluster.providers import provider_of
    from dlsys.spec.load import load_cluster

    cluster = load_cluster(ready.find(file), overrides or ()).cluster
    provider = provider_of(cluster)
    if dry_run:
        for name, text in provider.render().items():
            print(f"# {name}\n{text.rstrip()}")
        return
    if cluster.provider == "local" and (why := _store_trouble(cluster)):
        raise UsageError(f"{file}: storage: {why}", hint="Mend it; or give a folder, or leave storage out.")
    provider.up(_say)
    _say(f"{cluster.name} is up")
    _say(f"Send a job:   dlsys submit quickstart --cluster {cluster.name}")
    _say(f"Look at it:   dlsys cluster status {cluster.name}")
    _say(f"End it:       dlsys cluster down {cluster.name}")


@app.command()
def status(name: Name = None, as_json: AsJson = False) -> None:
    """Show a cluster's nodes, and where it answers."""
    from dlsys.jobs.client import Desk

    cluster, provider = _find(name)
    with provider.connect() as endpoint:
        desk = Desk(endpoint, cluster.name)
        health, nodes, jobs = desk.health(), desk.nodes(), desk.jobs()
    active = [job for job in jobs if job["state"] not in ENDED]
    row = {**_places(cluster.name), "cluster": cluster.name, "provider": cluster.provider, **health}
    if as_json:
        give({**row, "nodes": nodes, "jobs": len(active)})
        return
    for key in ("cluster", "provider", "address", "dashboard"):
        if row.get(key):
            print(f"{key:10} {row[key]}")
    if health["ray_away_since"]:
        print("ray        its head does not answer")
    print(f"jobs       {len(active)} not ended\n")
    lines = [
        [node["name"], _state(node), node["host"], *_amounts(node), node["id"][:12]]
        for node in sorted(nodes, key=lambda node: (not node["alive"], not _answers(node), node["name"]))
    ]
    print(table(["NODE", "STATE", "ADDRESS", "CPUS", "GPUS", "RAY ID"], lines))
    if any(_state(node) == "silent" for node in nodes):
        print("\nsilent: does not answer, and Ray has not given it up yet")


def _answers(node: dict[str, Any]) -> bool:
    return bool(node.get("answers", True))  # a queue of an earlier version does not say


def _state(node: dict[str, Any]) -> str:
    return "dead" if not node["alive"] else "alive" if _answers(node) else "silent"


@app.command()
def down(name: Name = None) -> None:
    """Stop a cluster's jobs, which save a checkpoint, and end it; runs, jobs and their logs stay."""
    from dlsys.jobs.client import Desk

    cluster, provider = _find(name)
    if provider.alive():
        try:
            with provider.connect() as endpoint:
                _drain(Desk(endpoint, cluster.name))
        except DlsysError as error:
            _say(f"its jobs could not be stopped in order: {error}")
    provider.down(_say)


def _drain(desk: Any) -> None:
    """Stops all jobs, and waits for their last checkpoints."""
    stopped = [desk.stop(job["id"])["id"] for job in desk.jobs() if job["state"] not in ENDED]
    for job_id in stopped:
        _say(f"{job_id} is stopped; on the next cluster: dlsys jobs retry {job_id}")
    deadline = time.monotonic() + _STOP_WITHIN
    while any(job["state"] not in ENDED for job in desk.jobs()) and time.monotonic() < deadline:
        time.sleep(0.2)
    while (behind := desk.health().get("behind")) and time.monotonic() < deadline:
        time.sleep(0.2)
    if behind:
        _say(f"the object store does not know the latest of {behind} jobs")


@app.command()
def doctor(name: Name = None, as_json: AsJson = False) -> None:
    """Look for what could keep a cluster or its jobs from working; exit code 1 when something does."""
    tell(_findings(*_find(name)), as_json)


def _findings(cluster: Any, provider: Any) -> Iterator[Finding]:
    from dlsys.cluster.provider import Finding
    from dlsys.jobs.client import Desk

    yield from provider.doctor()
    alive = provider.alive()
    if "://" in (cluster.storage or "") and (cluster.provider == "local" or not alive):
        why = _store_trouble(cluster)
        yield Finding(not why, why or f"{cluster.storage} can be written, read and deleted in from here")
    if not alive:
        return
    try:
        with provider.connect() as endpoint:
            desk = Desk(endpoint, cluster.name)
            health, silent = desk.health(), [n["name"] for n in desk.nodes() if _state(n) == "silent"]
    except DlsysError as error:
        yield Finding(False, str(error))
        return
    for name in silent:
        yield Finding(False, f"node {name} does not answer, and Ray has not given it up yet")
    if health.get("store_away"):
        yield Finding(False, f"its queue says: {health['store_away']}")
    away = health["ray_away_since"]
    said = "answers, Ray's head does not" if away else "of jobs answers"
    yield Finding(not away, f"its queue {said}")


def _store_trouble(cluster: Any) -> str:
    """Why a cluster's object store cannot be used from here; nothing where it can, or has none."""
    if "://" not in (cluster.storage or ""):
        return ""
    from dlsys.jobs.mirror.objects import Objects

    try:
        Objects(cluster.storage).check()
    except (OSError, UsageError) as error:
        return str(error)
    return ""


def _find(name: str | None) -> tuple[Any, Any]:
    """The cluster of a name, or of a file, which need not be up."""
    from dlsys.cluster.providers import find, provider_of
    from dlsys.spec.load import load_cluster

    if name is not None:
        try:
            cluster = load_cluster(ready.find(name)).cluster
        except UsageError:
            if name.endswith((".yaml", ".yml")):
                raise
        else:
            return cluster, provider_of(cluster)
    return find(name)


def _places(name: str) -> dict[str, Any]:
    from dlsys.cluster.places import ClusterPaths

    paths = ClusterPaths.of(name)
    state = paths.read_state()
    return {
        "address": state.get("address"),
        "dashboard": state.get("dashboard"),
        "desk": state.get("desk"),
        "token_path": str(paths.token),
    }


def _amounts(node: dict[str, Any]) -> tuple[str, str]:
    return f"{node['resources'].get('CPU', 0):g}", f"{node['resources'].get('GPU', 0):g}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
