"""What a job's files were when it began: a run that goes on with others is another one."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from dlsys.errors import UsageError
from dlsys.spec.files import files
from dlsys.spec.rl.job import Job

# Of a larger file, and of those in a folder, the size and the time of the last change must do.
_READ = 256 * 2**20


def fingerprint(job: Job, folder: Path) -> dict[str, str]:
    """A digest of each file and folder that a job reads, by the field that names it.

    Args:
        folder: where relative paths start.
    """
    return {".".join(map(str, path)): _of(folder / text) for path, text in files(job)}


def _of(path: Path) -> str:
    if path.is_file() and path.stat().st_size <= _READ:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if path.is_file():
        return _stamp(path)
    found = hashlib.sha256()
    for place, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            inner = Path(place, name)
            found.update(f"{inner.relative_to(path)}\0{_stamp(inner)}\0".encode())
    return found.hexdigest()


def _stamp(path: Path) -> str:
    told = path.stat()
    return f"{told.st_size}-{told.st_mtime_ns}"


def refuse_changes(before: dict[str, str], now: dict[str, str], step: int) -> None:
    """Refuses to go on with other files than those of a checkpoint.

    Raises:
        UsageError: one has changed.
    """
    changed = [name for name, digest in now.items() if before.get(name, digest) != digest]
    if changed:
        raise UsageError(
            f"{changed[0]}: what it names has changed since the checkpoint of step {step}: the run would go "
            "on with other data than it began with",
            hint="Bring it back; start a new run; or say checkpoint.changed_data=accept.",
        )
