"""From a job file, or a command, to what a cluster's desk takes."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlsys.errors import UsageError
from dlsys.jobs import run as runs
from dlsys.jobs import secrets
from dlsys.jobs.launch.resources import bundle
from dlsys.paths import RUN_ID, RunPaths, new_run_id
from dlsys.spec.job import Resources, TrainJob
from dlsys.spec.load import Loaded, LoadedSweep
from dlsys.track.mask import is_secret, mask_settings
from dlsys.track.record import default_uri


@dataclass(frozen=True)
class Options:
    """What a submission says besides what is to run.

    Attributes:
        priority: higher goes first.
        job_id: the id; by default a new one. The same id again is the same job.
        pip: a file of requirements.
        env: `NAME=value` for the job's processes.
        secrets: variables of this environment that they get too, and that are written down nowhere.
        folder: the working folder to be packed.
    """

    priority: int = 0
    job_id: str | None = None
    pip: Path | None = None
    env: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    folder: Path = Path()


def of_file(loaded: Loaded | LoadedSweep, options: Options) -> dict[str, Any]:
    """The submission of a checked job or sweep; its folder is packed by the caller."""
    from dlsys.jobs import sweep as sweeps

    is_sweep = isinstance(loaded, LoadedSweep)
    job_id = _id(options, loaded.sweep.name if isinstance(loaded, LoadedSweep) else loaded.job.name)
    with tempfile.TemporaryDirectory(prefix="dlsys-") as name:
        paths = RunPaths.create(job_id, under=Path(name))
        if isinstance(loaded, LoadedSweep):
            sweeps.prepare(loaded, paths)
        else:
            runs.prepare(loaded, paths=paths)
        files = {path.name: path.read_text() for path in sorted(paths.root.iterdir()) if path.is_file()}
    files["record.json"] = json.dumps(_for_cluster(json.loads(files["record.json"]), options.folder))
    base = loaded.job if isinstance(loaded, LoadedSweep) else loaded
    bundles, times = [bundle(base.job.resources)] * base.job.resources.workers, 1
    if isinstance(loaded, LoadedSweep):
        largest = max(
            sweeps.sizes(loaded), key=lambda size: (size.workers * size.gpus, size.workers * size.cpus)
        )
        bundles = [bundle(largest)] * largest.workers
        asked = loaded.sweep.concurrent
        times = 0 if asked == "auto" else asked
    return {
        **_common(options),
        "id": job_id,
        "kind": "sweep" if is_sweep else "train",
        "bundles": bundles,
        "times": times,
        "retries": base.job.failure.retries,
        "files": files,
    }


def of_command(
    command: list[str], name: str | None, resources: Resources, options: Options
) -> dict[str, Any]:
    """The submission of any command: one process, or with several workers one on each."""
    for word in command:
        key, _, value = word.lstrip("-").partition("=")
        if is_secret("", word) or (value and key.replace("-", "_").isidentifier() and is_secret(key)):
            raise UsageError(
                f"the command's word {mask_settings(word)} looks like a secret; commands are written down",
                hint="Let the program read it from a variable, and send that: --secret NAME.",
            )
    return {
        **_common(options),
        "id": _id(options, name or _name_of(command)),
        "kind": "command",
        "command": command,
        "bundles": [bundle(resources)] * resources.workers,
        "retries": 0,
    }


def needs_folder(loaded: Loaded | LoadedSweep) -> bool:
    """Whether a job uses files of its own: a user's code, or data by a relative path."""
    base = loaded.job if isinstance(loaded, LoadedSweep) else loaded
    return ":" in base.job.workload or any(_is_local(value, base.path.parent) for value in _texts(base.job))


def _common(options: Options) -> dict[str, Any]:
    said: dict[str, Any] = {"priority": options.priority}
    if options.pip is not None:
        try:
            lines = options.pip.read_text().splitlines()
        except OSError as error:
            raise UsageError(f"--pip {options.pip}: cannot be read: {error.strerror}") from error
        said["pip"] = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    env = {}
    for text in options.env:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(f"--env {text}: say NAME=value")
        if is_secret(key, value):
            raise UsageError(
                f"--env {key}: looks like a secret, and everyone who may use the cluster could read it",
                hint=f"Set it here, and say --secret {key}.",
            )
        env[key] = value
    return said | {"env": env, "secrets": secrets.of_environment(options.secrets)}


def _id(options: Options, name: str) -> str:
    if options.job_id is None:
        return new_run_id(name)
    if not RUN_ID.fullmatch(options.job_id):
        raise UsageError(
            f"--id {options.job_id}: an id is name-date-time-random, such as lenet5-20260101-120000-abcd"
        )
    return options.job_id


def _name_of(command: list[str]) -> str:
    """A command's own name: its script's, or its program's."""
    script = next((word for word in command if word.endswith((".py", ".sh"))), command[0])
    kept = "".join(
        letter if letter.isalnum() or letter in "_-" else "-" for letter in Path(script).stem.lower()
    )
    return kept.strip("-_")[:40] or "command"


def _for_cluster(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A record whose places are those of the cluster: the default store is there, and so is the folder."""
    if record.get("uri") == default_uri():
        record["uri"] = None
    inside = os.path.relpath(record["folder"], folder.resolve())
    record["folder"] = "." if inside.startswith("..") else inside
    return record


def _texts(job: TrainJob) -> list[str]:
    waiting: list[Any] = [job.data.model_dump(), job.model]
    found = []
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value
        elif isinstance(value, str):
            found.append(value)
    return found


def _is_local(text: str, folder: Path) -> bool:
    return not os.path.isabs(text) and len(text) < 1024 and (folder / text).exists() and text not in ("", ".")
