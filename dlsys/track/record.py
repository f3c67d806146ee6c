"""What a run's record says besides its metrics: where it came from and what it ran on."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from dlsys import __version__
from dlsys.paths import home
from dlsys.spec.kinds import AnyJob
from dlsys.spec.load import Loaded
from dlsys.spec.script.job import ScriptJob
from dlsys.spec.script.load import LoadedScript
from dlsys.track.address import refuse_deleted, resolved
from dlsys.track.mask import mask, mask_settings

# Bytes of a changed file whose changes are kept, and characters of all changes together.
_DIFFED, _DIFF = 2**20, 2**22
_PACKAGES = ("torch", "ray", "mlflow", "deepspeed", "numpy", "safetensors")


def tracking_uri(loaded: Loaded | LoadedScript) -> str:
    """The MLflow store: the command line's, MLFLOW_TRACKING_URI, the file's, or one under .dlsys.

    Raises:
        UsageError: MLflow can never deliver there.
    """
    chosen = _chosen(loaded, "uri", "MLFLOW_TRACKING_URI")
    return resolved(chosen, Path.cwd()) if chosen else default_uri()


def usual_uri() -> str:
    """The store that no file names: MLFLOW_TRACKING_URI, or one under .dlsys.

    Raises:
        UsageError: as `tracking_uri`.
    """
    told = os.environ.get("MLFLOW_TRACKING_URI")
    return resolved(told, Path.cwd()) if told else default_uri()


def _chosen(loaded: Loaded | LoadedScript, field: str, variable: str) -> str | None:
    """A setting by rank: the command line, the environment, the file."""
    told: str | None = getattr(loaded.job.tracking, field)
    if any(text.startswith(("tracking=", f"tracking.{field}=")) for text in loaded.overrides):
        return told
    return os.environ.get(variable) or told


def default_uri() -> str:
    return resolved(f"sqlite:///{home() / 'mlflow.db'}", Path.cwd())


def build(run_id: str, loaded: Loaded | LoadedScript) -> dict[str, Any]:
    """The record of a run, as JSON; nothing in it looks like a secret."""
    job, uri = loaded.job, tracking_uri(loaded)
    experiment = _chosen(loaded, "experiment", "MLFLOW_EXPERIMENT_NAME")
    refuse_deleted(uri, str(experiment))
    settings = params(job.model_dump(mode="json"))
    if isinstance(job, ScriptJob):
        settings["command"] = mask_settings(job.written)
    record: dict[str, Any] = {
        "run_id": run_id,
        "home": str(home()),
        "uri": uri,
        "experiment": experiment,
        "params": settings,
        "tags": {
            "dlsys.run_id": run_id,
            "dlsys.version": __version__,
            "dlsys.kind": job.kind,
            **subject(job),
            "dlsys.file": str(loaded.path),
            "dlsys.command": mask_settings(" ".join(sys.argv)),
            "mlflow.source.name": loaded.path.name,
            "mlflow.user": _user(),
            **_git(Path.cwd()),
            **{f"version.{name}": version for name, version in _versions().items()},
            **{f"hardware.{name}": value for name, value in _hardware().items()},
        },
    }
    return record


def subject(job: AnyJob) -> dict[str, str]:
    """What a job is about, as tags."""
    return {f"dlsys.{name}": value for name, value in job.subject.items()}


def params(tree: dict[str, Any]) -> dict[str, str]:
    """A resolved file's fields by dotted name, as the file would write them."""
    return {name: mask(name, _plain(value)) for name, value in _flat(tree).items()}


def dirty_diff(folder: Path) -> str:
    """What the working tree changes against its commit; empty without git or changes.

    Of large files it has the names alone; what looks like a secret is masked.
    """
    top = _run_git(folder, "rev-parse", "--show-toplevel")
    names = (_run_git(folder, "diff", "--name-only", "-z", "HEAD") or "").split("\0")[:-1]
    if top is None or not names:
        return ""
    root = Path(top.rstrip("\n"))
    sizes = {name: _size(root / name) for name in names}
    large = [name for name in names if sizes[name] > _DIFFED]
    without = [f":(top,exclude,literal){name}" for name in large]
    text = _run_git(folder, "diff", "HEAD", "--", ":(top)", *without) or ""
    if len(text) > _DIFF:
        text = f"{text[:_DIFF]}\n# and {len(text) - _DIFF:,} characters more\n"
    left_out = [f"# changed, and too large to be kept: {name} ({sizes[name]:,} bytes)\n" for name in large]
    return mask_settings(text + "".join(left_out))


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0  # deleted


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(tree, dict) and tree:
        parts = [_flat(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in tree.items()]
        return {name: value for part in parts for name, value in part.items()}
    return {prefix: tree}


def _plain(value: Any) -> str:
    """A value as the file would write it."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return str(value)


def _run_git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace")


def _git(folder: Path) -> dict[str, str]:
    commit = _run_git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {}
    branch = _run_git(folder, "rev-parse", "--abbrev-ref", "HEAD") or ""
    dirty = bool((_run_git(folder, "status", "--porcelain") or "").strip())
    return {
        "mlflow.source.git.commit": commit.strip(),
        "mlflow.source.git.branch": branch.strip(),
        "dlsys.git.dirty": str(dirty).lower(),
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _hardware() -> dict[str, str]:
    return {
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "cpus": str(len(os.sched_getaffinity(0))),
        "memory_gb": f"{psutil.virtual_memory().total / 1e9:.1f}",
    }


def _user() -> str:
    try:
        return psutil.Process().username()
    except (KeyError, psutil.Error):
        return str(os.getuid())
