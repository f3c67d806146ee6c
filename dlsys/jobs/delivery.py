"""The process that brings a run's records to MLflow, as its driver sees it."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from dlsys.errors import TrackingError
from dlsys.paths import RunPaths, read_json

# How long a run that has ended waits for its records to arrive, in seconds.
PATIENCE = 20.0


def start_writer(paths: RunPaths) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C on the terminal must not reach it.
    with open(paths.logs / "writer.log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "dlsys.track.writer", str(paths.root)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def wait_for_writer(writer: subprocess.Popen[bytes], patience: float) -> bool:
    """Waits for the writer to deliver; it goes on by itself if that takes longer."""
    # It has made way for the workers; now it is waited for, and others may use the machine, too.
    with suppress(OSError):
        Path(f"/proc/{writer.pid}/autogroup").write_text("0")
    try:
        return writer.wait(timeout=patience) == 0
    except subprocess.TimeoutExpired:
        # It ends by itself; somebody must collect it if this process lives on.
        threading.Thread(target=writer.wait, daemon=True).start()
        return False


def refused(paths: RunPaths) -> TrackingError | None:
    """What MLflow will not take however long one waits, of a run whose writer has ended."""
    told = read_json(paths.refusal) or {}
    if told.get("lasting"):
        return TrackingError(
            f"the run is done, and MLflow refuses its record: {told['reason']}",
            hint=f"All of it is kept. Mend that, then: dlsys runs sync {paths.id}",
            lasting=True,
        )
    aside = (read_json(paths.mlflow) or {}).get("refused", {})
    if aside:
        name, why = min(aside.items())
        return TrackingError(
            f"the run is done, and MLflow refuses {', '.join(sorted(aside))}; it has all else. {name}: {why}",
            hint=f"They are in {paths.spool}.",
            lasting=True,
        )
    return None
