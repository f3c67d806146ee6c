"""The one writer between a run's spool and MLflow, in a process of its own.

    python -m dlsys.track.writer RUN_FOLDER

A sweep's writer delivers its trials too. It outlives its driver: when the driver is killed, the
writer ends what the driver started, sets the run's status and delivers what is left. When MLflow is
away, it tries again with growing pauses; what it could not deliver stays in the spool for `dlsys
runs sync`.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlsys.errors import TrackingError
from dlsys.paths import TRIAL_ID, RunPaths, read_json, write_json
from dlsys.processes import alive, end_processes
from dlsys.track.mask import mask, mask_settings
from dlsys.track.spool import records

# Between two deliveries; the run's end is looked for more often.
_PAUSE = 1.0
_POLL = 0.25
_PAUSE_MOST = 10.0
# A trial without news for so long is looked at in turn only, so many at each delivery: a look at all of
# a thousand, every second, would cost more than bringing their metrics does.
_LIVELY = 60.0
_TURN = 50
# What of an outcome becomes a tag.
_TOLD = ("cause", "attempts")
# After the run's end, MLflow gets this long to come back before the rest is left for `sync`.
_GRACE = 15.0


# When a run ended, in ns (0 while it has not), and the bytes of its spool: another one is news.
State = tuple[int, int]
_NOTHING: State = (0, 0)


class Writer:
    """Delivers one run's spool.

    Args:
        paths: the run.
        store: anything with the methods of `dlsys.track.store.Store`.
    """

    def __init__(self, paths: RunPaths, store: Any) -> None:
        self._paths = paths
        self._store = store
        self._record = read_json(paths.record) or {}
        self._ended_before = "final" in (read_json(paths.mlflow) or {})
        self.run_id = store.ensure_run(self._record, paths)
        known = read_json(paths.cursor) or {}
        # With the first delivery go the parameters; what another store got does not count.
        self._begun = known.get("run_id") == self.run_id
        self._cursor: dict[str, int] = dict(known["offsets"]) if self._begun else {}

    def deliver(self, outcome: dict[str, Any] | None = None) -> int:
        """Sends what is new in the spool, and how the run ended; returns the number of points.

        Raises:
            TrackingError: MLflow refused or is away; what was sent before is remembered.
        """
        aside = (read_json(self._paths.mlflow) or {}).get("refused", {})
        points: list[tuple[str, float, int, int]] = []
        tags: dict[str, str] = {}
        offsets = dict(self._cursor)
        for path in sorted(self._paths.spool.glob("*.jsonl")):
            for record, end in records(path, offsets.get(path.name, 0)):
                offsets[path.name] = end
                step, moment = record.get("s"), record.get("t")
                tags.update(record.get("tags", {}))
                for name, value in record.get("m", {}).items():
                    if name not in aside:
                        points.append((name, float(value), int(moment or 0), int(step or 0)))
        tags |= {f"dlsys.{name}": str(outcome[name]) for name in _TOLD if outcome and outcome.get(name)}
        if outcome and self._ended_before:
            tags.setdefault("dlsys.cause", "")
        params = {} if self._begun else self._record.get("params", {})
        if points or tags or params:
            self._set_aside(self._store.log(self.run_id, points, params, tags))
        if offsets != self._cursor or not self._begun:
            self._cursor, self._begun = offsets, True
            write_json(self._paths.cursor, {"run_id": self.run_id, "offsets": offsets})
        return len(points)

    def tell_figures(self) -> None:
        """Answers a driver that asks what its script has logged.

        Raises:
            TrackingError: MLflow is away.
        """
        if "asked" in (read_json(self._paths.figures) or {}):
            metrics, step = self._store.figures(self.run_id)
            write_json(self._paths.figures, {"metrics": metrics, "step": step})

    def _set_aside(self, refused: dict[str, str]) -> None:
        """Says what MLflow will never take, here, in the run's tags, and to whoever asks its driver."""
        known = read_json(self._paths.mlflow) or {}
        new = {name: why for name, why in refused.items() if name not in known.get("refused", {})}
        if not new:
            return
        for name, why in new.items():
            sys.stderr.write(f"MLflow refuses {name!r}: {why}\n")
        names = {**known.get("refused", {}), **new}
        write_json(self._paths.mlflow, {**known, "refused": names})
        self._store.log(self.run_id, [], {}, {"dlsys.refused": ", ".join(sorted(names))})

    def finish(self, outcome: dict[str, Any], state: State, ended: int) -> None:
        """Uploads the run's files and sets its final status.

        Args:
            state: of the run, before what it ended with was delivered.
            ended: when, in ns.
        """
        paths = self._paths
        settings = [file for file in (paths.source, paths.spec) if file.is_file()]
        texts = {file.name: mask_settings(file.read_text()) for file in settings}
        if (diff := paths.root / "diff.patch").is_file():
            texts[diff.name] = mask("", diff.read_text())
        files = []
        for folder, place in ((paths.logs, "logs"), (paths.artifacts, "samples"), (paths.stacks, "stacks")):
            for file in sorted(folder.glob("*")):
                # A thousand trials' empty files would be a thousand uploads; a run's logs are always there.
                if _says_something(file) or (place == "logs" and not paths.sweep):
                    files.append((file, f"{place}/{file.name}" if file.is_dir() else place))
        if texts or files:
            self._store.log_files(self.run_id, texts, files)
        self._store.finish(self.run_id, outcome["status"], ended // 1_000_000)
        known = read_json(paths.mlflow) or {}
        write_json(paths.mlflow, {**known, "final": outcome["status"], "state": state})


def _says_something(path: Path) -> bool:
    return (
        any(_says_something(file) for file in path.iterdir()) if path.is_dir() else bool(path.stat().st_size)
    )


def _state(paths: RunPaths) -> State:
    try:
        ended = os.stat(paths.outcome).st_mtime_ns
    except FileNotFoundError:
        ended = 0
    try:
        with os.scandir(paths.spool) as found:
            return ended, sum(file.stat().st_size for file in found)
    except FileNotFoundError:
        return ended, 0


def _delivered_state(paths: RunPaths) -> State:
    ended, size = (read_json(paths.mlflow) or {}).get("state", _NOTHING)
    return ended, size


def delivered(paths: RunPaths) -> bool:
    """Whether MLflow has all of a run that has ended, and of its trials."""
    trials = paths.trials.iterdir() if paths.trials.is_dir() else ()
    return paths.outcome.exists() and all(
        _delivered_state(run) == _state(run) for run in (paths, *map(RunPaths, trials))
    )


@dataclass
class _Trial:
    """A trial as its sweep's writer sees it; it gets a run in MLflow with its first record or its end.

    Attributes:
        state: what MLflow has of it.
        writer: while it is RUNNING in MLflow.
        moved: when it last had news.
        refused: whether MLflow would not take the last of it.
    """

    paths: RunPaths
    state: State
    moved: float
    writer: Writer | None = None
    refused: bool = False

    def deliver(self, store: Any, fate: tuple[dict[str, Any], int] | None) -> int | None:
        """Sends what is new; returns the number of points, or None where there was no news.

        Args:
            fate: the outcome, and its time, of a trial that runs and has none of its own.
        """
        state = _state(self.paths)
        if state == self.state and (fate is None or self.writer is None):
            return None
        self.moved = time.monotonic()
        self.refused = True  # until it is through
        outcome, ended = (read_json(self.paths.outcome), state[0]) if state[0] else fate or (None, 0)
        if self.writer is None:
            self.writer = Writer(self.paths, store)
        sent = self.writer.deliver(outcome)
        if outcome:
            self.writer.finish(outcome, state, ended)
            self.writer, self.moved = None, -math.inf
        self.state, self.refused = state, False
        return sent


class Delivery:
    """Delivers a run, and its trials if it is a sweep; `Writer` says what it takes."""

    def __init__(self, paths: RunPaths, store: Any) -> None:
        self._paths = paths
        self._store = store
        self._writer = Writer(paths, store)
        self._trials: deque[_Trial] = deque()
        self._known: set[str] = set()
        self._finished = False

    def deliver(self, outcome: dict[str, Any] | None) -> Iterator[int]:
        """Sends what is new, run by run, and yields the number of points of each that had news.

        Args:
            outcome: how the run ended; it is the fate of its trials that have not.

        Raises:
            TrackingError: MLflow refused or is away; what was sent before is remembered.
        """
        state = _state(self._paths)
        if sent := self._writer.deliver(outcome):
            yield sent
        self._writer.tell_figures()
        fate = None
        if outcome:
            status = "FINISHED" if outcome["status"] == "FINISHED" else "KILLED"
            fate = ({"status": status, "cause": outcome.get("cause", "")}, state[0])
        due = self._due(everything=outcome is not None)
        # What MLflow refused (a trial that the user deleted there) must not hold up the rest.
        for refused in (False, True):
            for trial in [trial for trial in due if trial.refused is refused]:
                points = trial.deliver(self._store, fate)
                if points is not None:
                    yield points
            if outcome and not self._finished:
                self._writer.finish(outcome, state, state[0])
                self._finished = True

    def _due(self, *, everything: bool) -> list[_Trial]:
        """The trials to look at: new ones, those with news of late, and some of the others in turn."""
        names = set(os.listdir(self._paths.trials)) if self._paths.trials.is_dir() else set()
        now = time.monotonic()
        due = [
            trial
            for place, trial in enumerate(self._trials)
            if everything or place < _TURN or now - trial.moved < _LIVELY
        ]
        self._trials.rotate(-_TURN)
        for name in sorted(names - self._known):
            paths = RunPaths(self._paths.trials / name)
            if TRIAL_ID.fullmatch(name) and paths.record.exists():
                state = _delivered_state(paths)
                trial = _Trial(paths, state, moved=now if state == _NOTHING else -math.inf)
                self._known.add(name)
                self._trials.append(trial)
                due.append(trial)
        return due


def sync(paths: RunPaths) -> int:
    """Delivers a run and its trials once, and their final status if it has ended.

    Raises:
        TrackingError: MLflow refused or is away.
    """
    from dlsys.track.store import Store

    record = read_json(paths.record) or {}
    return sum(Delivery(paths, Store(record["uri"])).deliver(_outcome(paths)))


def run(paths: RunPaths) -> int:
    """Writes until the run has ended and everything is delivered."""
    delivery: Delivery | None = None
    pause, refusal = _PAUSE, ""
    ended_at: float | None = None
    fence = _fence(paths)
    record = read_json(paths.record) or {}
    # A script waits for its run to be made, and no step of it for anything: where others use all cores, one
    # that has stepped back would take a minute.
    waited_for = record.get("tags", {}).get("dlsys.kind") == "script"
    while True:
        if _fence(paths) != fence:
            return 0  # a new driver has taken the run over, and waits for us to leave it to its own writer
        outcome = _outcome(paths)
        if outcome and ended_at is None:
            ended_at = time.monotonic()
        try:
            if delivery is None:
                from dlsys.track.store import Store, is_made

                if is_made(record["uri"]) and not waited_for:
                    _step_back()
                delivery = Delivery(paths, Store(record["uri"]))
                # Who makes a store holds what all others wait for, and must not be the last to get a core.
                if not waited_for:
                    _step_back()
            began = time.monotonic()
            # The outcome is written after the last record, and was read before this.
            for _ in delivery.deliver(outcome):
                if _fence(paths) != fence:
                    return 0
                if ended_at is not None:
                    ended_at = time.monotonic()
            paths.refusal.unlink(missing_ok=True)
            if outcome:
                return 0
            # A busy store, or one far away, is given larger pieces.
            pause = min(max(_PAUSE, 10 * (time.monotonic() - began)), _PAUSE_MOST)
        except (TrackingError, OSError) as error:
            # MLflow is away, or our own disk is full: both pass. This goes to logs/writer.log.
            with suppress(OSError):
                sys.stderr.write(f"{error}\n")
            lasting = getattr(error, "lasting", False)
            with suppress(OSError):
                write_json(paths.refusal, {"reason": str(error), "lasting": lasting})
            # One refused trial does not end the others' way: they come first when it is tried again.
            final, refusal = lasting and str(error) == refusal, str(error)
            if ended_at is not None and (final or time.monotonic() - ended_at > _GRACE):
                return 3
            pause = min(pause * 2, _PAUSE_MOST if ended_at is None else 1.0)
        _wait(paths, pause, ended=outcome is not None)


def _fence(paths: RunPaths) -> Any:
    return (read_json(paths.owner) or {}).get("fence")


def _wait(paths: RunPaths, seconds: float, *, ended: bool) -> None:
    """Sleeps, but wakes up when the run ends; once it has ended, the whole time."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if not ended and left > _POLL and (paths.outcome.exists() or paths.figures.exists()):
            return
        time.sleep(min(_POLL, left))


def _outcome(paths: RunPaths) -> dict[str, Any] | None:
    """How the run ended; if its driver is gone without a word, that is how."""
    if outcome := read_json(paths.outcome):
        return outcome
    owner = read_json(paths.owner) or {}
    here = socket.gethostname()
    if not owner or owner.get("host", here) != here or alive(int(owner["pid"]), owner["created"]):
        return None
    if outcome := read_json(paths.outcome):  # its last act
        return outcome
    end_processes(owner.get("processes", []))
    outcome = {"status": "FAILED", "cause": "the driver process died", "fence": owner["fence"]}
    write_json(paths.outcome, outcome)
    return outcome


def _step_back() -> None:
    """Lets the workers go first: all of them wait for the one whose core MLflow takes."""
    os.nice(19)
    # Where Linux groups processes by session (autogroup), niceness counts within the group only; this
    # is one of its own, and would get as much of a core as all workers together.
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text("19")


def main() -> int:
    # Ctrl-C reaches the whole group of processes; the driver decides what it means.
    # Whoever ends the run ends its driver; what that leaves is still to be delivered.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return run(RunPaths(Path(sys.argv[1])))


if __name__ == "__main__":
    sys.exit(main())
