"""`submit`: a job on a cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlsys.cli import command as commands
from dlsys.cli.options import Cluster
from dlsys.cli.output import AsJson, give
from dlsys.errors import UsageError

if TYPE_CHECKING:
    from dlsys.jobs.submit import Submitted


def submit(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE [KEY=VALUE]... | [KEY=VALUE]... -- COMMAND...",
            help="A job or sweep file, or a command.",
        ),
    ] = None,
    cluster: Cluster = None,
    detach: Annotated[bool, typer.Option("-d", "--detach", help="Do not wait for it.")] = False,
    priority: Annotated[int, typer.Option(help="Higher goes first.")] = 0,
    job_id: Annotated[
        str | None, typer.Option("--id", help="The job's id, for a submission that may be repeated.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="A command's name; by default its script's.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="A command's processes.")] = None,
    cpus: Annotated[float | None, typer.Option(help="CPUs of each; 1 by default.")] = None,
    gpus: Annotated[float | None, typer.Option(help="GPUs of each.")] = None,
    experiment: Annotated[str | None, typer.Option(help="A command's MLflow experiment.")] = None,
    pip: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Requirements beside what the nodes have.")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="For the job's processes; no secrets.")
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A variable set here, for the job's processes; kept nowhere."),
    ] = None,
    working_dir: Annotated[
        Path | None,
        typer.Option(help="Packed and sent along when the job needs it; by default this folder."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send a job to a cluster: a file, or any script after `--`."""
    from dlsys.cli.jobs import follow
    from dlsys.cluster.places import choose
    from dlsys.cluster.reach import reach
    from dlsys.jobs.client import Desk
    from dlsys.jobs.submission import Options
    from dlsys.jobs.submit import folder_for, of_loaded, travels

    before, command = commands.split(words or [], "submit")
    loaded: Submitted
    if command is None:
        own = {"--name": name, "--workers": workers, "--cpus": cpus, "--gpus": gpus}
        commands.of_commands_alone({**own, "--experiment": experiment})
        loaded = _file(before, _as_overrides(env))
    else:
        options = [*commands.of_options(workers, experiment, cpus, gpus), *_as_overrides(env)]
        folder = (working_dir or Path()).resolve()
        loaded = commands.load("submit", before, command, name, options, folder)
    paths = choose(cluster)
    used = travels(loaded)
    packed = folder_for(loaded, working_dir, used)
    made = of_loaded(loaded, Options(priority, job_id, pip, tuple(env or ()), tuple(secret or ()), packed))
    with reach(paths) as endpoint:
        desk = Desk(endpoint, paths.name)
        if used:
            made["package"] = _bring(desk, packed, used)
        job = desk.submit(made)
        _acknowledge(job, paths.name, as_json)
        if not detach:
            raise typer.Exit(follow(desk, job["id"]))


def _file(words: list[str], env: list[str]) -> Submitted:
    """The job of a file.

    Args:
        env: what `--env` says, as overrides of a script's file.
    """
    from dlsys.spec.load import LoadedCluster, load_any
    from dlsys.spec.ready import find
    from dlsys.spec.script.load import LoadedScript

    if not words:
        raise UsageError("what is to run? dlsys submit FILE, or dlsys submit -- python train.py")
    file, *overrides = words
    # What has a full path is the nodes' own.
    loaded = load_any(find(file), overrides, there="relative")
    if env and isinstance(loaded, LoadedScript):
        loaded = load_any(find(file), [*overrides, *env], there="relative")
    if isinstance(loaded, LoadedCluster):
        raise UsageError(f"{file}: is a cluster; a job or a sweep is wanted here")
    return loaded


def _as_overrides(env: list[str] | None) -> list[str]:
    """Variables for a job, as a script's file says them."""
    from dlsys.spec.overrides import as_given

    pairs = (text.partition("=") for text in env or () if "=" in text)
    return [*as_given({f"env.{name}": value for name, _, value in pairs})]


def _bring(desk: Any, folder: Path, used: list[Path]) -> str:
    """Packs the working folder and brings it to the cluster; the name it has there."""
    import tempfile

    from dlsys.jobs.package import pack

    with tempfile.TemporaryDirectory(prefix="dlsys-") as place:
        limit = desk.health()["max_package"]
        target = Path(place, "package.zip")
        package = pack(folder, target, limit_mb=limit, note=_say, wanted=used)
        if not package.files:
            return ""
        _say(f"packed {package.files:,} files of {folder.resolve()}: {package.bytes / 1e6:.1f} MB")
        named = package.path.rename(package.path.with_name(f"{package.digest}.zip"))
        desk.upload(named)
        return named.name


def _acknowledge(job: dict[str, Any], cluster: str, as_json: bool) -> None:
    if as_json:
        give(job)
    else:
        print(job["id"], flush=True)
    where = f"{job['id']} --cluster {cluster}"
    _say(f"Its log:   dlsys jobs logs -f {where}\nStop it:   dlsys jobs stop {where}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
