"""The one place where MLflow is called.

Every call that can be repeated is harmless when repeated: an experiment and a run are looked for
before they are made, and a point that is sent twice stays one row.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dlsys.errors import TrackingError
from dlsys.paths import RunPaths, read_json, write_json
from dlsys.spec.names import wrong_name
from dlsys.track.address import sqlite_path
from dlsys.track.mask import mask

# MLflow reads its settings from the environment alone, and some when it is imported.
_SETTINGS = {
    # A server that is away must cost seconds, not MLflow's four minutes a call.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Otherwise each run's end costs another call, and two lines on the terminal.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}

PARAM_LIMIT = 6000
TAG_LIMIT = 5000
# What MLflow answers with where asking again changes nothing.
_LASTING = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED", "INVALID_STATE")


class Store:
    """A client of one MLflow store.

    Args:
        uri: `sqlite:///…` or a server's address.

    Raises:
        TrackingError: the store cannot be opened or reached.
    """

    def __init__(self, uri: str) -> None:
        import logging
        import warnings

        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        with warnings.catch_warnings():
            # In a notebook without ipywidgets, its progress bars say that they could be nicer.
            warnings.filterwarnings("ignore", "IProgress not found")
            from mlflow import MlflowClient

        for name in ("mlflow", "alembic", "sqlalchemy"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self.uri = uri
        self._experiments: dict[str, str] = {}
        # By dlsys's ids, MLflow's; and what a parent had before this process, by MLflow's id of it.
        self._runs: dict[str, str] = {}
        self._children: dict[str, dict[str, str]] = {}
        self._artifacts: dict[str, str] = {}
        with _translated(uri), _initialised_once(uri):
            self.client = MlflowClient(tracking_uri=uri)
            self.client.search_experiments(max_results=1)

    def experiment(self, name: str) -> str:
        """The id of an experiment, made if need be."""
        if name not in self._experiments:
            with _translated(self.uri):
                self._experiments[name] = self._experiment(name)
        return self._experiments[name]

    def find_experiment(self, name: str) -> str | None:
        """The id of an experiment, if there is one of this name."""
        with _translated(self.uri):
            found = self.client.get_experiment_by_name(name)
        return None if found is None else str(found.experiment_id)

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        try:
            # Otherwise MLflow's pages take it for an experiment with prompts and traces.
            kind = {"mlflow.experimentKind": "custom_model_development"}
            place = self._artifact_folder(name)
            return str(self.client.create_experiment(name, artifact_location=place, tags=kind))
        except MlflowException:
            # Another process was quicker.
            found = self.client.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)

    def _artifact_folder(self, experiment: str) -> str | None:
        path = sqlite_path(self.uri)
        if path is None:
            return None  # a server decides for itself
        safe = "".join(c if c.isalnum() or c in "-_" else "-" for c in experiment)
        return (path.parent / "artifacts" / safe).as_uri()

    def ensure_run(self, record: dict[str, Any], paths: RunPaths) -> str:
        """The MLflow run that belongs to a run, made at the first call, and RUNNING.

        Its parameters are left to the first `log`.
        """
        known = read_json(paths.mlflow) or {}
        name = str(record["run_id"])
        with _translated(self.uri):
            if known.get("uri") == self.uri:
                run_id, experiment = str(known["run_id"]), str(known["experiment_id"])
                self.client.update_run(run_id, status="RUNNING")
            else:
                experiment = self.experiment(record["experiment"])
                parent = self._parent(experiment, record.get("parent"))
                if found := self._made_before(experiment, name, parent):
                    self.client.update_run(found, status="RUNNING")
                run_id = found or self._create(experiment, record, paths, parent)
        # Whatever it says of an earlier end is over.
        made = {"uri": self.uri, "run_id": run_id, "experiment_id": experiment}
        aside = {"refused": known["refused"]} if known.get("run_id") == run_id and "refused" in known else {}
        write_json(paths.mlflow, made | aside)
        self._runs[name] = run_id
        return run_id

    def _create(self, experiment: str, record: dict[str, Any], paths: RunPaths, parent: str) -> str:
        tags = {**record["tags"], "mlflow.parentRunId": parent} if parent else record["tags"]
        began = int(paths.record.stat().st_mtime * 1000)
        try:
            run = self.client.create_run(experiment, began, tags, record["run_id"])
        except Exception:
            # A lost reply: it may be there.
            self._children.pop(parent, None)
            raise
        run_id = str(run.info.run_id)
        self._artifacts[run_id] = str(run.info.artifact_uri)
        self._children[run_id] = {}
        return run_id

    def _parent(self, experiment: str, name: str | None) -> str:
        """The MLflow run of a run's parent; empty for a run without one.

        Raises:
            TrackingError: its parent is not there yet: it has a writer of its own.
        """
        if name is None:
            return ""
        if name not in self._runs:
            found = self._search(experiment, f"tags.`dlsys.run_id` = '{name}'")
            if name not in found:
                raise TrackingError(f"{mask('', self.uri)}: the parent run {name} is not there yet")
            self._runs[name] = found[name]
        return self._runs[name]

    def _made_before(self, experiment: str, name: str, parent: str) -> str | None:
        """The run that a writer made, if it died before it could write that down.

        A parent is asked once for all its children: asking for each of a thousand would take longer
        than making them.
        """
        if not parent:
            return self._search(experiment, f"tags.`dlsys.run_id` = '{name}'").get(name)
        if parent not in self._children:
            self._children[parent] = self._search(experiment, f"tags.`mlflow.parentRunId` = '{parent}'")
        return self._children[parent].get(name)

    def _search(self, experiment: str, condition: str) -> dict[str, str]:
        """MLflow's ids of runs, by dlsys's."""
        found: dict[str, str] = {}
        page: str | None = ""
        while page is not None:
            runs = self.client.search_runs([experiment], condition, page_token=page or None)
            found.update((run.data.tags.get("dlsys.run_id", ""), str(run.info.run_id)) for run in runs)
            page = runs.token
        return found

    def log(
        self,
        run_id: str,
        points: Sequence[tuple[str, float, int, int]],
        params: Mapping[str, str],
        tags: Mapping[str, str],
    ) -> dict[str, str]:
        """Sends points (name, value, time in ms, step), parameters and tags in as few requests as can be.

        Returns:
            What MLflow refuses for good, by name, each with its reason; all else is there.

        Raises:
            TrackingError: MLflow is away, or refuses more than single items.
        """
        from mlflow.entities import Metric, Param, RunTag

        items: list[Any] = [Metric(*point) for point in points]
        items += [Param(name, value[:PARAM_LIMIT]) for name, value in params.items()]
        refused = {item.key: f"{item.key!r} {why}" for item in items if (why := wrong_name(item.key))}
        items = [item for item in items if item.key not in refused]
        items += [RunTag(name, value[:TAG_LIMIT]) for name, value in tags.items()]
        with _translated(self.uri):
            self._send(run_id, items, refused)
        return refused

    def _send(self, run_id: str, items: list[Any], refused: dict[str, str]) -> None:
        """Sends items; of a request that is refused, each half for itself, down to those that are to blame.

        Where all are refused, as by a run that is no more, it is not for what they are.
        """
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.exceptions import MlflowException

        def log(part: list[Any]) -> dict[str, MlflowException]:
            metrics = [item for item in part if isinstance(item, Metric)]
            params = [item for item in part if isinstance(item, Param)]
            tags = [item for item in part if isinstance(item, RunTag)]
            try:
                self.client.log_batch(run_id, metrics, params, tags)
            except MlflowException as error:
                if error.error_code != "INVALID_PARAMETER_VALUE":
                    raise
                if len(part) == 1:
                    return {part[0].key: error}
                middle = len(part) // 2
                return log(part[:middle]) | log(part[middle:])
            return {}

        found = log(items) if items else {}
        if found and found.keys() == {item.key for item in items}:
            raise next(iter(found.values()))
        refused.update({name: _first_line(error) for name, error in found.items()})

    def log_files(
        self, run_id: str, texts: Mapping[str, str], files: Sequence[tuple[Path, str | None]]
    ) -> None:
        """Uploads texts by file name, and (file or folder, artifact folder)."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        if not texts and not files:
            return
        with _translated(self.uri), TemporaryDirectory() as beside:
            # The client would ask the store for the place, run by run.
            if run_id not in self._artifacts:
                self._artifacts[run_id] = str(self.client.get_run(run_id).info.artifact_uri)
            place: Any = get_artifact_repository(self._artifacts[run_id], tracking_uri=self.uri)
            for name, text in texts.items():
                Path(beside, name).write_text(text, encoding="utf-8")
            for path, folder in [(Path(beside), None), *files]:
                if path.is_dir():
                    place.log_artifacts(str(path), folder)
                elif path.is_file():
                    place.log_artifact(str(path), folder)

    def figures(self, run_id: str) -> tuple[dict[str, float], int]:
        """The last value of each metric of a run, and the last step of any."""
        with _translated(self.uri):
            found = self.client.get_run(run_id).data
        # `data.metrics` has no steps.
        return dict(found.metrics), max((point.step for point in found._metric_objs), default=0)

    def finish(self, run_id: str, status: str, ended: int) -> None:
        """Sets the final status: FINISHED, FAILED or KILLED, at a time in ms."""
        with _translated(self.uri):
            self.client.set_terminated(run_id, status=status, end_time=ended)

    def runs(self, *, limit: int = 100, prefix: str | None = None) -> list[Any]:
        """The newest runs of dlsys in this store, newest first (MLflow's `Run` objects).

        Args:
            prefix: of their id, dlsys's or MLflow's; without one, trials are left out.
        """
        if prefix is None:
            # As run ids end; a trial's has its number behind that.
            conditions = ["tags.`dlsys.run_id` LIKE '%-______-____'"]
        else:
            start = "".join(c if c.isalnum() or c in "-._" else "_" for c in prefix)
            conditions = [
                f"tags.`dlsys.run_id` LIKE '{start}%'",
                f"attributes.run_id LIKE '{start}%' AND tags.`dlsys.run_id` != ''",
            ]
        with _translated(self.uri):
            experiments = [e.experiment_id for e in self.client.search_experiments()]
            order = ["attributes.start_time DESC"]
            found = [
                run
                for condition in conditions
                for run in self.client.search_runs(experiments, condition, max_results=limit, order_by=order)
            ]
        return list({run.info.run_id: run for run in found}.values())

    def history(self, run_id: str, name: str) -> list[tuple[int, float]]:
        """Every (step, value) of one metric of MLflow's run, in order; empty where it has none."""
        with _translated(self.uri):
            points = self.client.get_metric_history(run_id, name)
        return sorted((point.step, point.value) for point in points)

    def text(self, run: Any, name: str) -> str:
        """A text among the artifacts of one of `runs`.

        Raises:
            TrackingError: it is not there.
        """
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        with _translated(self.uri), TemporaryDirectory() as beside:
            place: Any = get_artifact_repository(run.info.artifact_uri, tracking_uri=self.uri)
            return Path(place.download_artifacts(name, beside)).read_text(encoding="utf-8")


@contextmanager
def _initialised_once(uri: str) -> Iterator[None]:
    """Holds a lock while a sqlite store may be created: several at once break its migration.

    The lock's file says of which store that was done, and by which MLflow: nobody waits for it again.
    """
    path = sqlite_path(uri)
    if path is None or is_made(uri):
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(_lock_of(path), "r+" if _lock_of(path).exists() else "w+") as lock:
        deadline = time.monotonic() + 120
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TrackingError(f"{path}: locked by another process for 120 s") from None
                time.sleep(0.05)
        lock.truncate(0)
        yield
        lock.seek(0)
        lock.write(_made_by(path))


def is_made(uri: str) -> bool:
    """Whether a store needs no creation: that takes seconds of work."""
    path = sqlite_path(uri)
    if path is None:
        return True
    try:
        return _lock_of(path).read_text() == _made_by(path)
    except OSError:
        return False


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _made_by(path: Path) -> str:
    return f"{importlib.metadata.version('mlflow')} {path.stat().st_ino}"


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    """MLflow's, SQLAlchemy's and the network's errors, as ours."""
    try:
        yield
    except TrackingError:
        raise
    except Exception as error:
        code = getattr(error, "error_code", "")
        said = mask("", f"MLflow at {uri}: {_first_line(error)}")[:400]
        raise TrackingError(said, lasting=code in _LASTING) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
