"""The MLflow store that runs without one of their own go to."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from dlsys.cluster.provider import Finding
from dlsys.errors import UsageError
from dlsys.track.address import public, sqlite_path
from dlsys.track.mask import mask
from dlsys.track.record import usual_uri

_ANSWERS_WITHIN = 5.0
_OTHER = "Set MLFLOW_TRACKING_URI to another store."


def tracking() -> Iterator[Finding]:
    """Whether it can be read and written."""
    try:
        uri = usual_uri()
    except UsageError as error:
        yield Finding(False, str(error), error.hint)
        return
    if (path := sqlite_path(uri)) is not None:
        yield _file(path)
    elif uri.startswith(("http:", "https:")):
        yield _server(uri)
    else:
        yield Finding(True, f"runs go to {mask('', uri)}, which nobody looked into")


def _file(path: Path) -> Finding:
    if not path.exists():
        return Finding(True, f"{path} is not there yet; the first run makes it")
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1)) as base:
            (version,) = base.execute("SELECT version_num FROM alembic_version").fetchone()
            (runs,) = base.execute("SELECT count(*) FROM runs").fetchone()
    except (sqlite3.Error, TypeError) as error:
        return Finding(False, f"{path} cannot be read as an MLflow store: {error}", _OTHER)
    known, newest = _schemas()
    if version not in known:
        mend = "Upgrade MLflow, or " + _OTHER[0].lower() + _OTHER[1:]
        return Finding(False, f"{path} is of a newer MLflow (schema {version})", mend)
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=1)) as base:
            # Takes the lock of one that writes, and gives it back.
            base.execute("BEGIN IMMEDIATE")
            base.rollback()
    except sqlite3.OperationalError as error:
        locked = "locked" in str(error)
        mend = "Runs wait for whoever writes now; look again." if locked else f"Make it writable. {_OTHER}"
        return Finding(False, f"{path}: {error}", mend, serious=not locked)
    if version not in newest:
        what, mend = (
            f"{path} is of an earlier MLflow",
            "The next run brings it up to date: keep a copy before.",
        )
        return Finding(False, what, mend, serious=False)
    return Finding(True, f"{path} can be read and written, and has {runs:,} runs and trials")


def _schemas() -> tuple[set[str], set[str]]:
    """The versions of its database that the installed MLflow knows, and of these the last."""
    # Out of the text: alembic runs what it reads, and that imports MLflow, which takes seconds.
    spec = find_spec("mlflow")
    if spec is None or spec.origin is None:
        raise LookupError("MLflow is not installed")
    texts = [path.read_text() for path in Path(spec.origin).parent.glob("store/db_migrations/versions/*.py")]
    known, passed = (
        {found for text in texts for found in re.findall(rf"(?m)^{name}\s*=\s*[\"'](\w+)", text)}
        for name in ("revision", "down_revision")
    )
    return known, known - passed


def _server(uri: str) -> Finding:
    shown = public(uri)
    try:
        with urlopen(f"{shown}/version", timeout=_ANSWERS_WITHIN) as answer:
            version = answer.read(100).decode(errors="replace").strip()
    except HTTPError as error:
        asks = error.code in (401, 403)
        what = "asks who one is" if asks else f"answers {error.code} {error.reason}"
        return Finding(asks, f"{shown} {what}", "" if asks else f"Is it MLflow's address? {_OTHER}")
    except (OSError, HTTPException, ValueError) as error:
        return Finding(
            False, f"{shown} does not answer: {getattr(error, 'reason', error)}", f"Start it. {_OTHER}"
        )
    return Finding(True, f"{shown} answers: MLflow {version!r}")
