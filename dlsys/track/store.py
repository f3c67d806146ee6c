"""The one place where MLflow is called.

Every call that can be repeated is harmless when repeated: an experiment and a run are looked for
before they are made, and a point that is sent twice stays one row.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from dlsys.errors import TrackingError
from dlsys.paths import RunPaths, read_json, write_json

# A server that is away must cost seconds, not MLflow's four minutes a call.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

PARAM_LIMIT = 6000


class Store:
    """A client of one MLflow store.

    Args:
        uri: `sqlite:///…` or a server's address.

    Raises:
        TrackingError: the store cannot be opened or reached.
    """

    def __init__(self, uri: str) -> None:
        import logging

        from mlflow import MlflowClient

        for name in ("mlflow", "alembic", "sqlalchemy"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self.uri = uri
        with _translated(uri), _initialised_once(uri):
            self.client = MlflowClient(tracking_uri=uri)
            self.client.search_experiments(max_results=1)

    def experiment(self, name: str) -> str:
        """The id of an experiment, made if need be."""
        from mlflow.exceptions import MlflowException

        with _translated(self.uri):
            found = self.client.get_experiment_by_name(name)
            if found is not None:
                return str(found.experiment_id)
            try:
                # Otherwise MLflow's pages take it for an experiment with prompts and traces.
                kind = {"mlflow.experimentKind": "custom_model_development"}
                place = self._artifacts(name)
                return str(self.client.create_experiment(name, artifact_location=place, tags=kind))
            except MlflowException:
                # Another process was quicker.
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
                return str(found.experiment_id)

    def _artifacts(self, experiment: str) -> str | None:
        path = sqlite_path(self.uri)
        if path is None:
            return None  # a server decides for itself
        safe = "".join(c if c.isalnum() or c in "-_" else "-" for c in experiment)
        return (path.parent / "artifacts" / safe).as_uri()

    def ensure_run(self, record: dict[str, Any], paths: RunPaths) -> str:
        """The MLflow run that belongs to a run, made at the first call, and RUNNING."""
        known = read_json(paths.mlflow)
        with _translated(self.uri):
            experiment = self.experiment(record["experiment"])
            if known and known.get("uri") == self.uri:
                run_id = str(known["run_id"])
                self.client.update_run(run_id, status="RUNNING")
                return run_id
            tagged = f"tags.`dlsys.run_id` = '{record['run_id']}'"
            found = self.client.search_runs([experiment], tagged, max_results=1)
            if found:
                run_id = str(found[0].info.run_id)
                self.client.update_run(run_id, status="RUNNING")
            else:
                tags = {**record["tags"], **self._parent(experiment, record.get("parent"))}
                run = self.client.create_run(experiment, tags=tags, run_name=record["run_id"])
                run_id = str(run.info.run_id)
            self._log_params(run_id, record["params"])
        write_json(paths.mlflow, {"uri": self.uri, "run_id": run_id, "experiment_id": experiment})
        return run_id

    def _parent(self, experiment: str, run_id: str | None) -> dict[str, str]:
        """The tag that makes a run a child of another one.

        Raises:
            TrackingError: its parent is not there yet: it has a writer of its own.
        """
        if run_id is None:
            return {}
        found = self.client.search_runs([experiment], f"tags.`dlsys.run_id` = '{run_id}'", max_results=1)
        if not found:
            raise TrackingError(f"MLflow at {self.uri}: the parent run {run_id} is not there yet")
        return {"mlflow.parentRunId": str(found[0].info.run_id)}

    def _log_params(self, run_id: str, params: dict[str, str]) -> None:
        from mlflow.entities import Param

        rows = [Param(name, value[:PARAM_LIMIT]) for name, value in params.items()]
        for start in range(0, len(rows), 100):
            self.client.log_batch(run_id, params=rows[start : start + 100])

    def log_points(self, run_id: str, points: Sequence[tuple[str, float, int, int]]) -> None:
        """Sends (name, value, time in ms, step), up to 1,000 a request."""
        from mlflow.entities import Metric

        with _translated(self.uri):
            for start in range(0, len(points), 1000):
                batch = [Metric(*point) for point in points[start : start + 1000]]
                self.client.log_batch(run_id, metrics=batch)

    def log_files(self, run_id: str, files: Sequence[tuple[Path, str]]) -> None:
        """Uploads (file or folder, artifact folder)."""
        with _translated(self.uri):
            for path, place in files:
                if path.is_dir():
                    self.client.log_artifacts(run_id, str(path), place or None)
                elif path.is_file():
                    self.client.log_artifact(run_id, str(path), place or None)

    def log_text(self, run_id: str, text: str, name: str) -> None:
        """Uploads a text as a file of this name."""
        with _translated(self.uri):
            self.client.log_text(run_id, text, name)

    def finish(self, run_id: str, status: str, tags: dict[str, str]) -> None:
        """Sets the final status: FINISHED, FAILED or KILLED."""
        with _translated(self.uri):
            for name, value in tags.items():
                self.client.set_tag(run_id, name, value[:5000])
            self.client.set_terminated(run_id, status=status)

    def runs(self, *, limit: int = 100) -> list[Any]:
        """The newest runs of dlsys in this store, newest first (MLflow's `Run` objects)."""
        with _translated(self.uri):
            experiments = [e.experiment_id for e in self.client.search_experiments()]
            return list(
                self.client.search_runs(
                    experiments,
                    "tags.`dlsys.run_id` != ''",
                    max_results=limit,
                    order_by=["attributes.start_time DESC"],
                )
            )


def sqlite_path(uri: str) -> Path | None:
    """The file behind a sqlite store; None for a server."""
    parsed = urlparse(uri)
    return Path(parsed.path[1:]) if parsed.scheme == "sqlite" else None


@contextmanager
def _initialised_once(uri: str) -> Iterator[None]:
    """Holds a lock while a sqlite store may be created: several at once break its migration."""
    path = sqlite_path(uri)
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(path.with_name(f".{path.name}.lock"), "w") as lock:
        deadline = time.monotonic() + 120
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TrackingError(f"{path}: locked by another process for 120 s") from None
                time.sleep(0.05)
        yield


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    """MLflow's, SQLAlchemy's and the network's errors, as ours."""
    try:
        yield
    except TrackingError:
        raise
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TrackingError(f"MLflow at {uri}: {first[:300]}") from error
