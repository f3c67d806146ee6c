"""The one writer between a run's spool and MLflow, in a process of its own.

    python -m dlsys.track.writer RUN_FOLDER

It outlives its driver: when the driver is killed, the writer ends what the driver started, sets
the run's status and delivers what is left. When MLflow is away, it tries again with growing
pauses; what it could not deliver stays in the spool for `dlsys runs sync`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from dlsys.errors import TrackingError
from dlsys.paths import RunPaths, read_json, write_json
from dlsys.track.mask import mask
from dlsys.track.spool import records

# Between two deliveries; the run's end is looked for more often.
_PAUSE = 1.0
_POLL = 0.25
_PAUSE_MOST = 10.0
# After the run's end, MLflow gets this long to come back before the rest is left for `sync`.
_GRACE = 15.0


class Writer:
    """Delivers one run's spool.

    Args:
        paths: the run.
        store: anything with the methods of `dlsys.track.store.Store`.
    """

    def __init__(self, paths: RunPaths, store: Any) -> None:
        self._paths = paths
        self._store = store
        self._cursor: dict[str, int] = dict((read_json(paths.cursor) or {}).get("offsets", {}))
        self._record = read_json(paths.record) or {}
        self.run_id = store.ensure_run(self._record, paths)

    def deliver(self) -> int:
        """Sends what is new in the spool; returns the number of points.

        Raises:
            TrackingError: MLflow refused or is away; what was sent before is remembered.
        """
        points: list[tuple[str, float, int, int]] = []
        offsets = dict(self._cursor)
        for path in sorted(self._paths.spool.glob("*.jsonl")):
            for record, end in records(path, offsets.get(path.name, 0)):
                offsets[path.name] = end
                step, moment = record.get("s"), record.get("t")
                for name, value in record.get("m", {}).items():
                    points.append((name, float(value), int(moment or 0), int(step or 0)))
        if points:
            self._store.log_points(self.run_id, points)
        if offsets != self._cursor:
            self._cursor = offsets
            write_json(self._paths.cursor, {"offsets": offsets})
        return len(points)

    def finish(self, outcome: dict[str, Any]) -> None:
        """Uploads the run's files and sets its final status."""
        paths = self._paths
        for file in (paths.source, paths.spec, paths.root / "diff.patch"):
            if file.is_file():
                self._store.log_text(self.run_id, mask("", file.read_text()), file.name)
        files = [(paths.logs, "logs")]
        for folder, place in ((paths.artifacts, "samples"), (paths.stacks, "stacks")):
            if folder.is_dir() and any(folder.iterdir()):
                files.append((folder, place))
        self._store.log_files(self.run_id, files)
        tags = {f"dlsys.{name}": str(outcome[name]) for name in ("cause", "attempts") if outcome.get(name)}
        self._store.finish(self.run_id, outcome["status"], tags)
        write_json(paths.mlflow, {**(read_json(paths.mlflow) or {}), "final": outcome["status"]})


def sync(paths: RunPaths) -> int:
    """Delivers a run's spool once, and its final status if it has ended.

    Raises:
        TrackingError: MLflow refused or is away.
    """
    from dlsys.track.store import Store

    record = read_json(paths.record) or {}
    writer = Writer(paths, Store(record["uri"]))
    sent = writer.deliver()
    if outcome := read_json(paths.outcome):
        writer.finish(outcome)
    return sent


def alive(pid: int, created: float) -> bool:
    """Whether a process is still the one that was recorded, and no zombie."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - created) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def end_processes(recorded: list[list[float]]) -> None:
    """Kills recorded processes, (pid, creation time), with all their descendants."""
    for pid, created in recorded:
        if not alive(int(pid), created):
            continue
        try:
            process = psutil.Process(int(pid))
            family = [*process.children(recursive=True), process]
        except psutil.Error:
            continue
        for member in family:
            try:
                member.kill()
            except psutil.Error:
                continue


def run(paths: RunPaths) -> int:
    """Writes until the run has ended and everything is delivered."""
    writer: Writer | None = None
    pause = _PAUSE
    ended_at: float | None = None
    fence = (read_json(paths.owner) or {}).get("fence")
    while True:
        if (read_json(paths.owner) or {}).get("fence") != fence:
            return 0  # a new driver has taken the run over, and waits for us to leave it to its own writer
        outcome = _outcome(paths)
        if outcome and ended_at is None:
            ended_at = time.monotonic()
        try:
            if writer is None:
                from dlsys.track.store import Store

                writer = Writer(paths, Store((read_json(paths.record) or {})["uri"]))
            # The outcome is written after the last record, and was read before this.
            writer.deliver()
            if outcome:
                writer.finish(outcome)
                return 0
            pause = _PAUSE
        except (TrackingError, OSError) as error:
            # MLflow is away, or our own disk is full: both pass. This goes to logs/writer.log.
            with suppress(OSError):
                sys.stderr.write(f"{error}\n")
            if ended_at is not None and time.monotonic() - ended_at > _GRACE:
                return 3
            pause = min(pause * 2, _PAUSE_MOST if ended_at is None else 1.0)
        _wait(paths, pause, ended=outcome is not None)


def _wait(paths: RunPaths, seconds: float, *, ended: bool) -> None:
    """Sleeps, but wakes up when the run ends; once it has ended, the whole time."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if not ended and left > _POLL and paths.outcome.exists():
            return
        time.sleep(min(_POLL, left))


def _outcome(paths: RunPaths) -> dict[str, Any] | None:
    """How the run ended; if its driver is gone without a word, that is how."""
    if outcome := read_json(paths.outcome):
        return outcome
    owner = read_json(paths.owner) or {}
    if not owner or alive(int(owner["pid"]), owner["created"]):
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _step_back()
    return run(RunPaths(Path(sys.argv[1])))


if __name__ == "__main__":
    sys.exit(main())
