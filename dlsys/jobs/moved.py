"""A run whose project was moved, renamed or copied since: its record's places become those of here."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from dlsys.paths import RunPaths, read_json, write_json
from dlsys.track.address import sqlite_path


def folder_of(paths: RunPaths) -> Path:
    """Where the relative paths of a run's job start; on a cluster, its record says so from here."""
    return Path(settle(paths).get("folder", ".")).absolute()


def settle(paths: RunPaths) -> dict[str, Any]:
    """A run's record, after its places were put right.

    The folder of the job and the store are looked for where they lie from the home of all runs: a copy
    of a project must not write into the original's store.
    """
    record = read_json(paths.record) or {}
    before, now = record.get("home"), str((paths.sweep or paths).root.parents[1])
    if before is None or before == now:
        return record
    folder = Path(now, os.path.relpath(record["folder"], before)).resolve()
    if os.path.isabs(record["folder"]) and folder.is_dir():
        record["folder"] = str(folder)
    store = sqlite_path(str(record.get("uri") or ""))
    if store is not None and store.is_relative_to(before):
        store = Path(now) / store.relative_to(before)
        record["uri"] = f"sqlite:///{store}"
        _move_artifacts(store, Path(before), Path(now))
    record["home"] = now
    write_json(paths.record, record)
    return record


def _move_artifacts(store: Path, before: Path, now: Path) -> None:
    """Tells a store where its artifacts are now; MLflow keeps full addresses, which no call of it changes."""
    if not store.is_file():
        return
    old, new = (f"{place.as_uri()}/" for place in (before, now))
    with suppress(sqlite3.Error), closing(sqlite3.connect(store, timeout=10)) as base, base:
        for table, column in (("runs", "artifact_uri"), ("experiments", "artifact_location")):
            base.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                (new, len(old) + 1, len(old), old),
            )
