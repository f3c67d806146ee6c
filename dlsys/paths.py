"""Where everything is kept: one class names every file of a run."""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlsys.errors import UsageError

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
RUN_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}-\d{8}-\d{6}-[0-9a-f]{4}")
TRIAL_ID = re.compile(rf"({RUN_ID.pattern})\.\d{{5}}")


def home() -> Path:
    """The folder of runs and of the default MLflow store: DLSYS_HOME, or .dlsys here."""
    return Path(os.environ.get("DLSYS_HOME") or ".dlsys").absolute()


def cache() -> Path:
    """The folder of what can be made again: `dlsys` in XDG_CACHE_HOME, or in .cache of the user's home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dlsys"


def node_home() -> Path | None:
    """Where this node keeps its copies of runs from an object store, if not where the driver's node does."""
    told = os.environ.get("DLSYS_NODE_HOME")
    return Path(told) if told else None


def new_run_id(name: str) -> str:
    """`name-date-time-random`: unique, sortable, and a safe file name."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return f"{name}-{stamp}-{secrets.token_hex(2)}"


@dataclass(frozen=True)
class RunPaths:
    """The files of one run.

    Attributes:
        root: the run's own folder, `<home>/runs/<run id>`; a trial's is `trials/<trial id>` in its sweep's.
    """

    root: Path

    @classmethod
    def create(cls, run_id: str, *, under: Path | None = None) -> RunPaths:
        """Makes the folders of a new run, readable by their owner alone.

        Args:
            run_id: what it is called.
            under: the home to make it in; by default this folder's.

        Raises:
            UsageError: the place is not writable.
        """
        place = under or home()
        paths = cls(place / "runs" / run_id)
        try:
            paths.root.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            paths.root.mkdir(mode=0o700)
            paths.make()
            ignore = place / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
        except OSError as error:
            raise UsageError(
                f"{paths.root}: cannot be made: {error.strerror}",
                hint="Runs are kept in .dlsys here; set DLSYS_HOME to another folder.",
            ) from error
        return paths

    def make_trial(self, number: int) -> RunPaths:
        """Makes the folders of a trial of this sweep, those that are not there yet."""
        trial = self.trial(number)
        trial.make()
        return trial

    def make(self) -> None:
        """Makes the folders of this run, those that are not there yet."""
        place = self.root.parent if self.sweep else self.root
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self.root, self.spool, self.checkpoints, self.logs, self.stacks, self.failures):
            folder.mkdir(mode=0o700, exist_ok=True)

    @classmethod
    def fitting(cls, prefix: str) -> list[RunPaths]:
        """The runs whose ids start with `prefix`; trials too, if that is longer than their sweep's id."""
        known = cls.all()
        runs = [run for run in known if run.id.startswith(prefix)]
        for sweep in known:
            if prefix.startswith(f"{sweep.id}.") and sweep.trials.is_dir():
                found = (cls(path) for path in sorted(sweep.trials.iterdir()))
                runs += [t for t in found if TRIAL_ID.fullmatch(t.id) and t.id.startswith(prefix)]
        return [run for run in runs if run.id == prefix] or runs

    @classmethod
    def find(cls, prefix: str) -> RunPaths:
        """The one run that fits, as `fitting` has it.

        Raises:
            UsageError: no such run, or several.
        """
        runs = cls.fitting(prefix)
        if len(runs) == 1:
            return runs[0]
        if not runs:
            raise UsageError(f"no run {prefix!r} in {home() / 'runs'}", hint="See: dlsys runs list")
        raise UsageError(f"{prefix!r} fits several runs: {', '.join(run.id for run in runs)}")

    @classmethod
    def all(cls) -> list[RunPaths]:
        """Every run, oldest first; trials belong to their sweep and are left out."""
        folder = home() / "runs"
        found = folder.iterdir() if folder.is_dir() else ()
        runs = [cls(path) for path in found if RUN_ID.fullmatch(path.name) and not path.is_symlink()]
        return sorted(runs, key=lambda run: run.id[-20:])

    @property
    def id(self) -> str:
        return self.root.name

    @property
    def trials(self) -> Path:
        """The trials of a sweep, each a run's folder."""
        return self.root / "trials"

    def trial(self, number: int) -> RunPaths:
        return RunPaths(self.trials / f"{self.id}.{number:05}")

    def under(self, home: Path) -> RunPaths:
        """The same run in another home."""
        place = RunPaths(home / "runs" / (self.sweep or self).id)
        return RunPaths(place.trials / self.id) if self.sweep else place

    @property
    def sweep(self) -> RunPaths | None:
        """The sweep that this run is a trial of."""
        return RunPaths(self.root.parent.parent) if TRIAL_ID.fullmatch(self.id) else None

    @property
    def source(self) -> Path:
        """The job file's text, as the user wrote it."""
        return self.root / "job.yaml"

    @property
    def spec(self) -> Path:
        """The resolved job: all defaults, all overrides."""
        return self.root / "spec.yaml"

    @property
    def record(self) -> Path:
        """What the tracker must know: experiment, uri, tags, parameters."""
        return self.root / "record.json"

    @property
    def submission(self) -> Path:
        """What a cluster's queue knows of the run as a job; absent for a run that was never submitted."""
        return self.root / "submission.json"

    @property
    def rates(self) -> Path:
        """What the nodes cost that the run is on, by group; absent where no price is known."""
        return self.root / "rates.json"

    @property
    def places(self) -> Path:
        """Which rank was on which node, and how long: a file `attempt-N.json` for each attempt on Ray."""
        return self.root / "places"

    @property
    def secrets(self) -> Path:
        """A submitted job's secrets; absent when it has none, and once it has ended."""
        return self.root / "secrets"

    @property
    def mlflow(self) -> Path:
        """The MLflow run that belongs to this one, once it exists."""
        return self.root / "mlflow.json"

    @property
    def refusal(self) -> Path:
        """Why MLflow did not take what was sent last; absent once it has."""
        return self.root / "refusal.json"

    @property
    def figures(self) -> Path:
        """What a script has logged to its MLflow run: its driver asks for it here, and the writer answers."""
        return self.root / "figures.json"

    @property
    def lock(self) -> Path:
        """Locked by the driver as long as it lives."""
        return self.root / "owner.lock"

    @property
    def owner(self) -> Path:
        """Which driver owns the run: its fence number, process and machine."""
        return self.root / "owner.json"

    @property
    def outcome(self) -> Path:
        """How the last attempt ended; absent while it runs."""
        return self.root / "outcome.json"

    @property
    def spool(self) -> Path:
        """Metrics on their way to MLflow: a file for each worker."""
        return self.root / "spool"

    @property
    def cursor(self) -> Path:
        """How far the spool has been delivered."""
        return self.root / "cursor.json"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def stacks(self) -> Path:
        """What each worker was doing when the watchdog bit."""
        return self.root / "stacks"

    @property
    def failures(self) -> Path:
        """What ended a worker, as it told it itself."""
        return self.root / "failures"

    @property
    def artifacts(self) -> Path:
        """What the run made for people to look at: samples, exported weights."""
        return self.root / "artifacts"

    @property
    def ballast(self) -> Path:
        """Room that is given back when the disk is full, so that a run can still say how it ended."""
        return self.root / "ballast"

    def log(self, rank: int) -> Path:
        return self.logs / f"rank-{rank}.log"


def write_json(path: Path, value: Any) -> None:
    """Replaces a file as a whole: a reader sees the old text or the new one, never a part."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(beside, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any] | None:
    """A file's JSON object; None where it is missing, torn or no object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
