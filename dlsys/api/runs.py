"""Runs to look at: from their folder, or where that is gone from MLflow."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsys.api.visit import visit
from dlsys.errors import UsageError
from dlsys.jobs.moved import settle
from dlsys.paths import RunPaths, read_json
from dlsys.registry import known
from dlsys.spec import yaml
from dlsys.track.runs import listed, one_of, row_of
from dlsys.track.spool import records

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import Tensor

# (step, value), in order.
Points = list[tuple[int, float]]


@dataclass(frozen=True)
class Run:
    """A run as it stood when it was looked up.

    Attributes:
        id: dlsys's own id of it.
        status: as in MLflow: RUNNING, FINISHED, FAILED or KILLED.
        metrics: the last value of each.
        folder: where its files lie, its checkpoints among them; None where they are not on this machine.
        store: the MLflow store that has it.
    """

    id: str
    status: str
    metrics: Mapping[str, float] = field(repr=False, compare=False)
    folder: Path | None = field(repr=False, compare=False)
    store: str = field(repr=False, compare=False)

    @property
    @visit
    def job(self) -> dict[str, Any]:
        """The resolved job, all defaults and changes filled in."""
        if (paths := self._paths) is not None:
            text = paths.spec.read_text(encoding="utf-8")
        else:
            from dlsys.track.store import Store

            text = Store(self.store).text(self._remembered(), "spec.yaml")
        job: dict[str, Any] = yaml.read(text, f"{self.id}: spec.yaml").data
        return job

    @visit
    def curve(self, *names: str) -> DataFrame:
        """How metrics went: a column `step`, and one for each; NaN at steps where one was not measured.

        Args:
            names: such as `train/loss`; by default all that the run has.

        Raises:
            UsageError: it has no such metric.
            TrackingError: its folder is gone, and MLflow cannot be read.
        """
        import pandas

        points = self._points(names)
        columns = {name: pandas.Series(dict(values), dtype=float) for name, values in points.items()}
        return pandas.DataFrame(columns).sort_index().rename_axis("step").reset_index()

    @visit
    def features(self, table: Any, /) -> Tensor:
        """Rows of a table as the run's model sees them, by what was learnt from its training rows.

        Args:
            table: of Arrow or pandas, with at least the columns that were learnt from.

        Returns:
            float32 (rows, features).

        Raises:
            DataError: a column is not there, or holds what it did not hold.
            UsageError: the run did not learn from a table, or its folder is gone.
        """
        import torch

        from dlsys.data.features.encoding import features_of
        from dlsys.data.own.tables import as_cells

        learnt = self._learnt("features")
        if "columns" not in learnt:
            raise UsageError(f"{self.id}: no features can be made: it did not learn from a table")
        return torch.from_numpy(features_of(learnt, as_cells(table, "table")))

    @visit
    def images(self, paths: Iterable[str | os.PathLike[str]], /) -> Tensor:
        """Image files as the run's model sees them: of the size, and less the mean, that it was trained with.

        Args:
            paths: the files.

        Returns:
            float32 (images, channels, size, size).

        Raises:
            DataError: a file is no image, or damaged.
            UsageError: the run did not learn from a folder of images, or its folder is gone.
        """
        from dlsys.data.images.image_folder import images_of

        learnt = self._learnt("images")
        if "size" not in learnt.get("image", {}):
            raise UsageError(f"{self.id}: no images can be made: it did not learn from a folder of images")
        return images_of(learnt, [Path(path) for path in paths])

    def _learnt(self, wanted: str) -> dict[str, Any]:
        """What was learnt from the data.

        Raises:
            UsageError: the run's folder is gone, so that what is wanted cannot be made.
        """
        from dlsys.train.engine import LEARNT

        if (paths := self._paths) is None:
            raise UsageError(f"{self.id}: no {wanted} can be made: its folder is not here")
        return read_json(paths.artifacts / LEARNT) or {}

    def _points(self, names: tuple[str, ...]) -> dict[str, Points]:
        if (paths := self._paths) is not None:
            every = points_of(paths)
            self._check(names, every)
            return {name: every[name] for name in names or every}
        from dlsys.track.store import Store

        run = self._remembered()
        self._check(names, run.data.metrics)
        history = partial(Store(self.store).history, run.info.run_id)
        return {name: history(name) for name in names or sorted(run.data.metrics)}

    def _check(self, names: tuple[str, ...], measured: Mapping[str, Any]) -> None:
        for name in names:
            if name not in measured:
                raise UsageError(f"{self.id} has no metric {name!r}.{known(name, sorted(measured))}")

    @property
    def _paths(self) -> RunPaths | None:
        """Its folder, if that is still there."""
        return RunPaths(self.folder) if self.folder is not None and self.folder.is_dir() else None

    def _remembered(self) -> Any:
        return one_of(listed(self.store, 1000, self.id), self.id)


@visit
def find(prefix: str, /) -> Run:
    """The run whose id starts with `prefix`; a sweep's trial, if that is longer than the sweep's id.

    Raises:
        UsageError: no such run in this folder, or several.
        TrackingError: MLflow cannot be read.
    """
    if RunPaths.fitting(prefix):
        return of_folder(RunPaths.find(prefix))
    found = one_of(listed(None, 1000, prefix), prefix)
    row = row_of(found)
    if here := RunPaths.fitting(row["run"]):
        return of_folder(here[0])
    from dlsys.track.record import usual_uri

    return Run(row["run"], row["status"], row["metrics"], None, usual_uri())


@visit
def runs(*, limit: int = 20) -> DataFrame:
    """The newest runs of this folder's store, a row each: the figures are those of validation and test.

    Raises:
        TrackingError: MLflow cannot be read.
    """
    import pandas

    rows = [row_of(run) for run in listed(None, limit)]
    split = ("valid/", "test/")
    figures = sorted({name for row in rows for name in row["metrics"] if name.startswith(split)})
    columns = ["run", "status", "cause", "workload", "started", "seconds", *figures]
    frame = pandas.DataFrame([{**row, **row["metrics"]} for row in rows], columns=columns)
    return frame.astype({"started": "datetime64[s]"})


def of_folder(paths: RunPaths) -> Run:
    """The run of a folder."""
    outcome = read_json(paths.outcome) or {}
    # A script's figures are MLflow's; its outcome has the last ones.
    metrics = {name: points[-1][1] for name, points in points_of(paths).items()} or outcome.get("metrics", {})
    return Run(paths.id, outcome.get("status", "RUNNING"), metrics, paths.root, str(settle(paths)["uri"]))


def points_of(paths: RunPaths) -> dict[str, Points]:
    """What the run's workers recorded, by metric."""
    found: dict[str, Points] = {}
    for path in sorted(paths.spool.glob("*.jsonl")):
        for record, _ in records(path):
            for name, value in record.get("m", {}).items():
                found.setdefault(name, []).append((int(record["s"]), float(value)))
    return dict(sorted(found.items()))
