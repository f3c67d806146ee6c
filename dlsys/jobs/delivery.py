"""The process that brings a run's records to MLflow, as its driver sees it."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from dlsys.paths import RunPaths

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
