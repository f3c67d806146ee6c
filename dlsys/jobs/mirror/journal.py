"""What a node knows of a run in the store: one file, that its processes open by turns."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dlsys.paths import RunPaths, read_json, write_json

FOLDER = ".mirror"


class StoreError(OSError):
    """The store does not answer, or refuses; it may be well again later."""


def folder_of(paths: RunPaths) -> Path:
    """The folder of this node's own notes on a run; it is never mirrored."""
    folder = paths.root / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


class Journal:
    """A table on disk.

    Args:
        path: its file.

    Attributes:
        known: the table, while it is `open`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.known: dict[str, Any] = {}

    @contextmanager
    def open(self) -> Iterator[dict[str, Any]]:
        """Keeps every other process and thread out; what the table holds at the end is kept."""
        with open(self._path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.known = read_json(self._path) or {}
            before = repr(self.known)
            try:
                yield self.known
            finally:
                if repr(self.known) != before and self._path.parent.is_dir():
                    self.save()

    def save(self) -> None:
        write_json(self._path, self.known)
