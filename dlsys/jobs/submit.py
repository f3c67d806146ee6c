"""From a job to what a cluster's desk takes."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlsys.errors import UsageError
from dlsys.jobs import run as runs
from dlsys.jobs.submission import Options, common, new_id, refuse_secrets
from dlsys.paths import RunPaths
from dlsys.spec.load import Loaded, LoadedSweep
from dlsys.spec.own_code import find_source
from dlsys.spec.rl.job import Job
from dlsys.spec.script import rules as script_rules
from dlsys.spec.script.load import LoadedScript
from dlsys.track.record import default_uri

Submitted = Loaded | LoadedScript | LoadedSweep


def of_loaded(loaded: Submitted, options: Options) -> dict[str, Any]:
    """The submission of a checked job or sweep; its folder is packed by the caller.

    Raises:
        UsageError: an option is wrong, or a script's command holds a secret.
    """
    from dlsys.jobs import sweep as sweeps
    from dlsys.jobs.sweep_sizes import sizes, total

    if isinstance(loaded, LoadedScript):
        refuse_secrets(loaded.job.command)
    said = common(options)
    is_sweep = isinstance(loaded, LoadedSweep)
    job_id = new_id(options, loaded.sweep.name if isinstance(loaded, LoadedSweep) else loaded.job.name)
    with tempfile.TemporaryDirectory(prefix="dlsys-") as name:
        paths = RunPaths.create(job_id, under=Path(name))
        if isinstance(loaded, LoadedSweep):
            sweeps.prepare(loaded, paths)
        else:
            runs.prepare(loaded, paths=paths)
        files = {path.name: path.read_text() for path in sorted(paths.root.iterdir()) if path.is_file()}
    files["record.json"] = json.dumps(_for_cluster(json.loads(files["record.json"]), options.folder))
    base = loaded.job if isinstance(loaded, LoadedSweep) else loaded
    bundles, times = base.job.resources.bundles, 1
    if isinstance(loaded, LoadedSweep):
        largest = max(sizes(loaded), key=lambda size: (total(size, "GPU"), total(size, "CPU")))
        bundles = largest.bundles
        asked = loaded.sweep.concurrent
        times = 0 if asked == "auto" else asked
    return {
        **said,
        "id": job_id,
        "kind": "sweep" if is_sweep else base.job.kind,
        "bundles": [room for bundle in bundles if (room := _counted(bundle))],
        "times": times,
        "retries": base.job.failure.retries,
        "files": files,
    }


def _counted(bundle: dict[str, float]) -> dict[str, float]:
    """What the queue counts of a bundle."""
    return {key: value for key, value in bundle.items() if key in ("CPU", "GPU")}


def travels(loaded: Submitted) -> list[Path]:
    """The files of its own that a job uses: a user's code, and data by a relative path; full paths.

    Of a script it is the folder that it is run in, and the script, if the command names one.
    """
    if isinstance(loaded, LoadedScript):
        named = script_rules.script(loaded.job)
        own_script = [] if named is None or os.path.isabs(named[1]) else [loaded.folder / named[1]]
        return [loaded.folder.resolve(), *(Path(os.path.normpath(path)) for path in own_script)]
    base = loaded.job if isinstance(loaded, LoadedSweep) else loaded
    modules = [find_source(name.partition(":")[0]) for name in base.job.code.values() if ":" in name]
    # Of installed packages the nodes have their own.
    own = [path for path in modules if path and path.is_relative_to(os.getcwd())]
    local = [text for text in _texts(base.job) if _is_local(text, base.folder)]
    # Links stay: what they point at is packed in their place.
    return [*own, *(Path(os.path.normpath(base.folder / text)) for text in local)]


def folder_for(loaded: Submitted, told: Path | None, used: Sequence[Path]) -> Path:
    """The folder to be packed: the one that was told, this one, or the job file's where that holds all.

    Args:
        used: as `travels` has them.

    Raises:
        UsageError: it does not hold all that the job uses.
    """
    base = loaded.job if isinstance(loaded, LoadedSweep) else loaded
    for folder in [told] if told else [Path(), base.folder]:
        outside = next((path for path in used if not path.is_relative_to(folder.resolve())), None)
        if outside is None:
            return folder
    raise UsageError(
        f"{outside}: the job uses it, and it lies outside of {(told or Path()).resolve()}, which is packed",
        hint="Say --working-dir FOLDER, one that holds all that the job uses.",
    )


def _for_cluster(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A record whose places are those of the cluster: the default store is there, and so is the folder."""
    if record.get("uri") == default_uri():
        record["uri"] = None
    record.pop("home", None)
    inside = os.path.relpath(record["folder"], folder.resolve())
    record["folder"] = "." if inside.startswith("..") else inside  # where it uses nothing of its own
    return record


def _texts(job: Job) -> list[str]:
    waiting: list[Any] = [*job.options]
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
