"""`submit`: a job on a cluster."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from dlsys.cli.options import Cluster
from dlsys.cli.output import AsJson, give
from dlsys.errors import UsageError


def submit(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE [KEY=VALUE]... | -- COMMAND...", help="A job or sweep file, or a command."
        ),
    ] = None,
    cluster: Cluster = None,
    detach: Annotated[bool, typer.Option("-d", "--detach", help="Do not wait for it.")] = False,
    priority: Annotated[int, typer.Option(help="Higher goes first.")] = 0,
    job_id: Annotated[
        str | None, typer.Option("--id", help="The job's id, for a submission that may be repeated.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="A command's name; by default its script's.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="A command's processes.")] = 1,
    cpus: Annotated[float, typer.Option(min=0, help="CPUs of each.")] = 1,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs of each.")] = 0,
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
    """Send a job to a cluster: a file, or any command after `--`."""
    from dlsys.cli.jobs import follow
    from dlsys.cluster.places import choose
    from dlsys.cluster.reach import reach
    from dlsys.jobs.client import Desk
    from dlsys.jobs.submission import Options

    if not words:
        raise UsageError("what is to run? dlsys submit FILE, or dlsys submit -- python train.py")
    paths = choose(cluster)
    said = Options(priority, job_id, pip, tuple(env or ()), tuple(secret or ()), working_dir or Path())
    is_command = "--" in sys.argv and words == sys.argv[sys.argv.index("--") + 1 :]
    used: list[Path] = []
    if is_command:
        made = _command(words, name, workers, cpus, gpus, said)
    else:
        made, used, said = _file(words, said, working_dir)
    with reach(paths) as endpoint:
        desk = Desk(endpoint, paths.name)
        if is_command or used:
            made["package"] = _bring(desk, said.folder, used)
        job = desk.submit(made)
        _acknowledge(job, paths.name, as_json)
        if not detach:
            raise typer.Exit(follow(desk, job["id"]))


def job_group(job: Annotated[str, typer.Argument(metavar="JOB")]) -> None:
    """Run a submitted command on its workers: what a cluster's queue gives to Ray."""
    import os

    from dlsys.jobs import group
    from dlsys.jobs.desk import book
    from dlsys.paths import RunPaths

    paths = RunPaths.find(job)
    known, address = book.read(paths), os.environ.get("RAY_ADDRESS")
    if known is None or known.kind != "command" or not address:
        raise UsageError(f"{paths.id}: only a cluster's queue can start this")
    group.run(paths, known, address)


def _command(words: list[str], name: str | None, workers: int, cpus: float, gpus: float, said: Any) -> Any:
    from dlsys.jobs.submission import of_command

    need = {key: value for key, value in {"CPU": cpus, "GPU": gpus}.items() if value}
    return of_command(words, name, workers, need, said)


def _file(words: list[str], said: Any, working_dir: Path | None) -> tuple[Any, list[Path], Any]:
    """The submission of a file, what of its own it uses, and the options with the folder to be packed."""
    from dlsys.jobs.submit import folder_for, of_file, travels
    from dlsys.spec.load import LoadedCluster, load_any
    from dlsys.spec.ready import find
    from dlsys.spec.script.load import LoadedScript

    file, *overrides = words
    # What has a full path is the nodes' own.
    loaded = load_any(find(file), overrides, there="relative")
    if isinstance(loaded, LoadedCluster):
        raise UsageError(f"{file}: is a cluster; a job or a sweep is wanted here")
    if isinstance(loaded, LoadedScript):
        raise UsageError(
            f"{file}: is of kind: script, which is run here: dlsys run {file}",
            hint=f"Its command goes to a cluster by itself: dlsys submit -- {loaded.job.written}",
        )
    used = travels(loaded)
    said = replace(said, folder=folder_for(loaded, working_dir, used))
    return of_file(loaded, said), used, said


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
