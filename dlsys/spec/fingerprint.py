"""What a job's files were when it began: a run that goes on with others is another one."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path

from dlsys.errors import UsageError
from dlsys.spec.files import files
from dlsys.spec.rl.job import Job

# As much is read; of a larger file pieces, and of a larger folder the names and sizes must do. Times say
# nothing: on another machine the same files have others.
_READ, _FILES = 256 * 2**20, 1000
_PIECES, _PIECE = 16, 64 * 2**10
# Digests of another kind say nothing about these.
_KIND = "2:"


def fingerprint(job: Job, folder: Path) -> dict[str, str]:
    """A digest of each file and folder that a job reads and that is there, by the field that names it.

    Args:
        folder: where relative paths start.
    """
    return {
        ".".join(map(str, path)): digest(folder / text)
        for path, text in files(job)
        if (folder / text).exists()  # or on the machines that train alone
    }


def digest(path: Path) -> str:
    """Of a file's content, or a folder's; of much of it, of pieces."""
    places = [path] if path.is_file() else sorted(place for place in path.rglob("*") if place.is_file())
    told = [(place, place.stat()) for place in places]
    whole = len(told) <= _FILES and sum(stat.st_size for _, stat in told) <= _READ
    found = hashlib.sha256()
    for place, stat in told:
        content = ""
        if whole or path.is_file():
            content = _content(place, stat.st_size, stat.st_mtime_ns, whole)
        found.update(f"{place.relative_to(path)}\0{stat.st_size}\0{content}\0".encode())
    return _KIND + found.hexdigest()


@functools.lru_cache(maxsize=4 * _FILES)
def _content(path: Path, size: int, changed: int, whole: bool) -> str:  # noqa: ARG001 - a key
    """The digest of a file as it was at a time: the trials of a sweep ask again and again."""
    with open(path, "rb") as file:
        if whole:
            return hashlib.file_digest(file, "sha256").hexdigest()
        found = hashlib.sha256()
        for piece in range(_PIECES):
            file.seek((size - _PIECE) * piece // (_PIECES - 1))
            found.update(file.read(_PIECE))
        return found.hexdigest()


def refuse_changes(before: Mapping[str, str], now: Mapping[str, str], since: str) -> None:
    """Refuses to go on with other files than before.

    Args:
        before, now: as `fingerprint` has them.
        since: what was before: `the checkpoint of step 5`.

    Raises:
        UsageError: one has changed.
    """
    for name, digest in now.items():
        if before.get(name, "").startswith(_KIND) and before[name] != digest:
            raise UsageError(
                f"{name}: what it names has changed since {since}: it would go on with other data than it "
                "began with",
                hint="Bring it back; start anew; or say checkpoint.changed_data=accept.",
            )
