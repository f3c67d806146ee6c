"""The address of an MLflow store: made whole at the start, and refused where it can never work."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import urlparse, urlsplit, urlunsplit

from dlsys.errors import UsageError

_SQLITE = "sqlite:///"
# What MLflow's client takes; databases besides SQLite are SQLAlchemy's.
_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks", "uc")


def sqlite_path(uri: str) -> Path | None:
    """The file behind a sqlite store; None for a server."""
    return Path(uri.removeprefix(_SQLITE).partition("?")[0]) if uri.startswith(_SQLITE) else None


def public(uri: str) -> str:
    """A server's address without the name and the password that may be in it."""
    parts = urlsplit(uri)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))


def resolved(uri: str, folder: Path) -> str:
    """The same address from wherever it is used later.

    Args:
        uri: as a file, the command line or the environment says it.
        folder: where its relative path starts.

    Raises:
        UsageError: MLflow can never deliver there.
    """
    scheme = urlparse(uri).scheme.partition("+")[0]
    if scheme not in _SCHEMES:
        raise UsageError(
            f"tracking.uri: {uri!r} is no store of MLflow 3, which no longer writes to plain folders",
            hint="Say sqlite:///mlflow.db for a file, or a server's address: https://…",
        )
    path = sqlite_path(uri)
    if path is None:
        return uri
    if "?" in uri or "#" in uri:
        raise UsageError(
            f"tracking.uri: {uri!r} has a ? or a #, which MLflow reads as the end of the file's name",
            hint="Use another folder: DLSYS_HOME, or tracking.uri.",
        )
    return f"{_SQLITE}{folder.absolute() / path}"


def refuse_deleted(uri: str, experiment: str) -> None:
    """Refuses an experiment that was deleted in MLflow's pages, where a look costs nothing: in a sqlite file.

    Raises:
        UsageError: it takes no runs until somebody restores it.
    """
    path = sqlite_path(uri)
    if path is None or not path.is_file():
        return
    query = "SELECT experiment_id, lifecycle_stage FROM experiments WHERE name = ?"
    reading, row = f"file:{path}?mode=ro", None
    with suppress(sqlite3.Error), closing(sqlite3.connect(reading, uri=True, timeout=1)) as file:
        row = file.execute(query, (experiment,)).fetchone()
    if row and row[1] == "deleted":
        raise UsageError(
            f"tracking.experiment: {experiment!r} was deleted in MLflow ({path}), and takes no runs",
            hint=f"Restore it: MLFLOW_TRACKING_URI={uri} mlflow experiments restore -x {row[0]}. "
            "Or say another tracking.experiment.",
        )
