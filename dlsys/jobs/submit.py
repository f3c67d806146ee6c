"""From a job file to what a cluster's desk takes."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from dlsys.jobs import run as runs
from dlsys.jobs.submission import Options, common, new_id
from dlsys.paths import RunPaths
from dlsys.spec.load import Loaded, LoadedSweep
from dlsys.spec.rl.job import Job
from dlsys.track.record import default_uri


def of_file(loaded: Loaded | LoadedSweep, options: Options) -> dict[str, Any]:
    """The submission of a checked job or sweep; its folder is packed by the caller."""
    from dlsys.jobs import sweep as sweeps
    from dlsys.jobs.sweep_sizes import sizes, total

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
        **common(options),
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


def needs_folder(loaded: Loaded | LoadedSweep) -> bool:
    """Whether a job uses files of its own: a user's code, or data by a relative path."""
    base = loaded.job if isinstance(loaded, LoadedSweep) else loaded
    return any(":" in name for name in base.job.code) or any(
        _is_local(value, base.path.parent) for value in _texts(base.job)
    )


def _for_cluster(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A record whose places are those of the cluster: the default store is there, and so is the folder."""
    if record.get("uri") == default_uri():
        record["uri"] = None
    inside = os.path.relpath(record["folder"], folder.resolve())
    record["folder"] = "." if inside.startswith("..") else inside
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
