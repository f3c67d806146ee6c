"""One sweep from its start to its end: `dlsys run` of a sweep file, here and now.

A sweep's folder is a run's folder: it has a record, an owner, a writer to MLflow. Its trials are
folders below it. Besides, it keeps what it needs to be taken up again after its driver died: the
resolved sweep, the job that the trials train, and the ledger of what happened.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dlsys.errors import ExpectationError, RunError, UsageError
from dlsys.jobs.cost import Meter
from dlsys.jobs.driving import Driving, Ending, Note, silent
from dlsys.jobs.launch.resources import check_fits
from dlsys.jobs.mirror.node import Mirror
from dlsys.jobs.moved import folder_of
from dlsys.jobs.run import unmet
from dlsys.jobs.sweep_report import keep_report, line
from dlsys.jobs.sweep_sizes import sizes, total
from dlsys.jobs.warm_start import earlier
from dlsys.paths import RunPaths, new_run_id, read_json, write_json
from dlsys.spec import yaml
from dlsys.spec.files import Files, files, placed
from dlsys.spec.fingerprint import fingerprint, refuse_changes
from dlsys.spec.load import LoadedSweep, load_any
from dlsys.spec.rl.job import Job, RLResources
from dlsys.spec.train.job import Resources
from dlsys.track import record as provenance
from dlsys.track.spool import Spool
from dlsys.tune.director import Director, Order, Trial
from dlsys.tune.ledger import Ledger
from dlsys.tune.summary import counts


@dataclass(kw_only=True)
class SweepEnded(Ending):
    """How a sweep ended.

    Attributes:
        trials: how many there are, by their status.
        epochs: trained by all of them.
        best: the best trial; None where none was measured.
        test: what it showed on the test set.
        report: the page that shows all of it; None where nothing was measured.
    """

    trials: dict[str, int] = field(default_factory=dict)
    epochs: int = 0
    best: Trial | None = None
    test: dict[str, float] | None = None
    report: Path | None = None

    def told(self) -> dict[str, Any]:
        metrics = {**(self.best.metrics if self.best else {}), **(self.test or {})}
        best = self.best.number if self.best else None
        return {
            "attempts": 1,
            "metrics": metrics,
            "trials": self.trials,
            "epochs": self.epochs,
            "best": best,
        }


def ledger_of(paths: RunPaths) -> Path:
    return paths.root / "ledger.jsonl"


def prepare(loaded: LoadedSweep, paths: RunPaths | None = None) -> RunPaths:
    """Makes a new sweep: its id, its folder (or the one given), its record, and what it is made from."""
    paths = paths or RunPaths.create(new_run_id(loaded.sweep.name))
    paths.source.write_text(loaded.source)
    (paths.root / "trained.yaml").write_text(yaml.dump(loaded.written))
    _write_spec(paths, loaded)
    record = provenance.build(paths.id, loaded.job)
    record["params"] = provenance.params(loaded.sweep.model_dump(mode="json"))
    record["tags"] |= {"dlsys.kind": "sweep", "dlsys.file": str(loaded.path)}
    record["folder"] = str(loaded.job.folder)
    write_json(paths.record, record)
    if diff := provenance.dirty_diff(Path.cwd()):
        (paths.root / "diff.patch").write_text(diff)
    ledger_of(paths).touch(mode=0o600)
    return paths


def _write_spec(paths: RunPaths, loaded: LoadedSweep) -> None:
    told = {**loaded.sweep.model_dump(mode="json"), "job": "trained.yaml", "overrides": {}}
    paths.spec.write_text(yaml.dump(told))


def reopen(paths: RunPaths, changes: tuple[str, ...] = (), there: Files = "none") -> LoadedSweep:
    """The sweep of a folder, as it was resolved when it began.

    Args:
        changes: overrides of what a sweep that goes on may change: `concurrent`, `retries`.
        there: which of its files must be there, as in `load_any`.

    Raises:
        UsageError: no sweep, or a change that would make another sweep of it.
    """
    if not ledger_of(paths).exists():
        raise UsageError(f"{paths.id} is no sweep", hint="See: dlsys sweep list")
    allowed = ("concurrent=", "retries=")
    if wrong := [text for text in changes if not text.startswith(allowed)]:
        raise UsageError(
            f"{wrong[0]}: cannot change in a sweep that goes on; only concurrent and retries can",
            hint="More trials: dlsys sweep extend ID --trials +20",
        )
    loaded = load_any(paths.spec, changes, folder=folder_of(paths), there=there)
    assert isinstance(loaded, LoadedSweep), "a sweep's folder holds a sweep"
    return loaded


def look(paths: RunPaths) -> Director:
    """What is known of a sweep, whoever runs it now; only to be read.

    Raises:
        UsageError: no sweep.
    """
    loaded = reopen(paths)
    return Director(loaded.sweep, loaded.job.job, Ledger(ledger_of(paths), read_only=True))


def execute(
    paths: RunPaths,
    loaded: LoadedSweep,
    *,
    address: str | None,
    note: Note = silent,
    watch: Callable[[Director], None] | None = None,
    more: int = 0,
    farewell: Callable[[SweepEnded], None] = lambda ended: None,
    may_exit: bool = True,
) -> SweepEnded:
    """Runs a prepared or reopened sweep to its end; never raises for what happens in trials.

    Args:
        address: a running Ray cluster; None embeds one.
        note: gets a sentence about each thing that happens.
        watch: sees the sweep several times a second; then reports are not noted one by one.
        more: trials on top of those that the sweep already may have.
        farewell, may_exit: as in `dlsys.jobs.run.execute`.
    """
    ended = SweepEnded(run_id=paths.id)
    mirror, told = Mirror.of(paths), lambda: farewell(ended)
    with (
        Driving(
            paths, ended, mirror, whom=loaded.sweep.notify, note=note, farewell=told, may_exit=may_exit
        ) as driving,
        closing(Ledger(ledger_of(paths))) as ledger,
        closing(_Driver(driving, loaded, ledger, watch)) as driver,
    ):
        driving.conclude = functools.partial(_conclude, driving, driver.director, ended)
        if not driver.director.trials:
            driver.director.warm_start(earlier(loaded.sweep, driver.uri))
        if more:
            driver.director.extend(driver.director.sweep.trials + more)
        driver.run(address)
        _settle(ended, driver.director)
        driver.tell_best()
        driving.check()
        _judge(ended, loaded, paths)
    return ended


def _settle(ended: SweepEnded, director: Director) -> None:
    ended.best, ended.test = director.best, director.test
    ended.epochs, ended.trials = director.epochs, counts(director)


def _conclude(driving: Driving, director: Director, ended: SweepEnded) -> None:
    _settle(ended, director)
    if not driving.interrupts.overdue:
        ended.report = keep_report(driving.paths, director, ended.status, driving.note)


class _Driver:
    """What stands between the director and the trials' folders."""

    def __init__(
        self,
        driving: Driving,
        loaded: LoadedSweep,
        ledger: Ledger,
        watch: Callable[[Director], None] | None,
    ) -> None:
        self._driving, self._loaded, self._watch = driving, loaded, watch
        self._paths, self._mirror = driving.paths, driving.mirror
        self._record = read_json(self._paths.record) or {}
        self._spool = Spool(self._paths.spool / "rank-0.jsonl")
        self._meter = Meter(self._paths)
        self._jobs: dict[int, tuple[dict[str, Any], Job]] = {}
        self._cluster: tuple[float, float] | None = None
        self._queued = False
        self.director = Director(loaded.sweep, loaded.job.job, ledger, self._trial_ended)
        self._said = {number: len(trial.reports) for number, trial in self.director.trials.items()}

    @property
    def uri(self) -> str:
        """The MLflow store."""
        return str(self._record["uri"])

    def close(self) -> None:
        self._spool.close()
        self._meter.close()

    def run(self, address: str | None) -> None:
        if self.director.finished:
            return
        from dlsys.jobs.launch.ray_session import RaySession
        from dlsys.jobs.trial import train
        from dlsys.tune import runner

        self._look_at_data()
        self._queued = address is not None and self._paths.submission.exists()
        session = RaySession(self._driving.owner, address, queued=self._queued)
        try:
            session.start(max(sizes(self._loaded), key=lambda size: total(size, "CPU")))
            self._driving.interrupts.install()
            if not self._queued:  # else held against the whole cluster before; a node may be away
                self._cluster = session.capacity()
            concurrent = self._loaded.sweep.concurrent

            def watch() -> bool:
                self._driving.attend()
                self._say()
                self._meter.beat()
                return self._driving.interrupts.received

            self._mirror.exchange()
            runner.run(
                self.director,
                train,
                self._paths.root / "tune",
                prepare=self._prepare,
                concurrent=None if concurrent == "auto" else concurrent,
                watch=watch,
            )
            self._mirror.exchange()
            self._say()
        finally:
            session.stop()

    def _look_at_data(self) -> None:
        """What a sweep that goes on reads is what it began with, or its trials do not compare.

        Raises:
            UsageError: it has changed.
        """
        base = self._loaded.job
        now = fingerprint(base.job, Path(self._record["folder"]))
        if "data" not in self._record:
            self._record["data"] = now
            write_json(self._paths.record, self._record)
        elif base.job.checkpoint.changed_data == "refuse":
            refuse_changes(self._record["data"], now, "the sweep began")

    def _prepare(self, order: Order) -> tuple[dict[str, Any], Resources | RLResources]:
        from dlsys.jobs.launch.assignment import Assignment
        from dlsys.jobs.trial import TrialLeg

        job = self._job(order)
        if self._cluster is not None:
            cpus, gpus = self._cluster
            check_fits(job.resources, cpus=cpus, gpus=gpus, place="the cluster")
        paths = self._paths.trial(order.trial)
        assignment = Assignment(
            root=str(paths.root),
            job=job,
            folder=self._record["folder"],
            directory="" if self._queued else os.getcwd(),  # Ray has unpacked it on each node
            attempt=order.number,
            fence=self._driving.owner.fence,
            owner=str(self._paths.root),
            pause=order.until,
            tested=order.tested,
            store=self._mirror.store,
        )
        leg = TrialLeg(assignment, self._loaded.sweep.metric)
        if order.donor is not None:
            start = self.director.trials[order.trial].start
            leg = replace(leg, donor=str(self._paths.trial(order.donor).root), donor_epoch=start)
        return leg.to_dict(), job.resources

    def _data_of(self, job: Job) -> dict[str, str]:
        """What a trial's files must be; nothing where the settings choose them."""
        same = list(files(job)) == list(files(self._loaded.job.job))
        return self._record["data"] if same and job.checkpoint.changed_data == "refuse" else {}

    def _job(self, order: Order) -> Job:
        """The trial's job; its folder and record are made when it is first asked for."""
        known = self._jobs.get(order.trial)
        if known is not None and known[0] == order.settings:
            return known[1]
        job = self._loaded.build(order.settings)
        paths = self._paths.make_trial(order.trial)
        if not order.tested:  # else it has ended already, and stays so
            paths.outcome.unlink(missing_ok=True)
        paths.spec.write_text(yaml.dump(job.model_dump(mode="json")))
        flat = provenance.params(job.model_dump(mode="json"))
        kept = ("dlsys.version", "mlflow.user", "mlflow.source.name", "mlflow.source.git.commit")
        tags = {name: value for name, value in self._record["tags"].items() if name in kept}
        record = {
            "run_id": paths.id,
            "uri": self._record["uri"],
            "experiment": self._record["experiment"],
            "parent": self._paths.id,
            "folder": self._record["folder"],
            "data": self._data_of(job),
            "params": flat,
            "tags": {
                **tags,
                "dlsys.run_id": paths.id,
                "dlsys.kind": "trial",
                **provenance.subject(job),
                "dlsys.settings": json.dumps(order.settings),
            },
        }
        write_json(paths.record, record)
        self._jobs[order.trial] = order.settings, job
        return job

    def _trial_ended(self, trial: Trial) -> None:
        paths = self._paths.trial(trial.number)
        if not paths.root.is_dir() or paths.outcome.exists():
            return
        status = "FAILED" if trial.status == "failed" else "FINISHED"
        outcome = {"status": status, "reason": trial.status, "cause": trial.cause, "attempts": trial.legs}
        write_json(paths.outcome, {**outcome, "metrics": trial.metrics})

    def _say(self) -> None:
        """Tells people and MLflow of what has been reported since the last time."""
        director = self.director
        for number, trial in list(director.trials.items()):
            before = self._said.get(number, 0)
            for epoch, value in trial.reports[before:]:
                if self._watch is None:
                    self._driving.note(line(director, trial, epoch, value))
            if len(trial.reports) > before:
                self._said[number] = len(trial.reports)
                self._spool.metrics(sum(self._said.values()), self._figures())
        if self._watch is not None:
            self._watch(director)

    def _figures(self) -> dict[str, float]:
        director = self.director
        best = director.best
        values = {
            "sweep/epochs": float(director.epochs),
            "sweep/trials": float(len(director.trials)),
            "sweep/done": float(
                sum(t.status in ("done", "stopped", "failed") for t in director.trials.values())
            ),
        }
        if best is not None and best.value is not None:
            values["sweep/best"] = best.value
        return values

    def tell_best(self) -> None:
        """The sweep's own figures in MLflow are its best trial's."""
        best = self.director.best
        if best is not None:
            self._spool.metrics(sum(self._said.values()), {**best.metrics, **(self.director.test or {})})


def _judge(ended: SweepEnded, loaded: LoadedSweep, paths: RunPaths) -> None:
    """The verdict on a sweep that came to its end, and the best trial's job as a file."""
    if ended.best is None:
        raise RunError(
            f"no trial of {sum(ended.trials.values())} was ever measured; the last one says why",
            hint=f"See: dlsys sweep trials {paths.id}",
        )
    paths.artifacts.mkdir(exist_ok=True)
    (paths.artifacts / "best.yaml").write_text(best_file(loaded, ended.best))
    metrics = {**ended.best.metrics, **(ended.test or {})}
    if missed := unmet(loaded.job.job, metrics):
        raise ExpectationError("; ".join(f"the best trial's {text}" for text in missed))
    ended.status = "FINISHED"


def best_file(loaded: LoadedSweep, best: Trial) -> str:
    """The best trial's job as a file that runs by itself and gives the same figure."""
    job = placed(loaded.build(best.settings), loaded.job.folder)
    head = f"# Trial {best.number} of {loaded.sweep.name}: {loaded.sweep.metric} {best.value} "
    return f"{head}after {best.epoch} epochs.\n{yaml.dump(job)}"
