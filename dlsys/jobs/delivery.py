"""The process that brings a run's records to MLflow, as its driver sees it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from dlsys.errors import TrackingError
from dlsys.paths import RunPaths, read_json, write_json

# How long a run that has ended waits for its records to arrive, in seconds.
PATIENCE = 20.0
# How long a script waits for its run in MLflow: a new store takes seconds to make, an old one that a newer
# MLflow migrates takes longer.
_MADE_WITHIN = 60.0
# A server that does not answer may be starting.
_AWAY = 10.0
_LOOK = 0.02


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


def handed_over(paths: RunPaths, watch: Callable[[], None]) -> dict[str, str]:
    """The variables by which MLflow in another program writes into this run, once the writer has made it.

    Args:
        watch: called several times a second; raises to end the waiting.

    Raises:
        TrackingError: MLflow is away, or refuses the run.
    """
    record = read_json(paths.record) or {}
    paths.refusal.unlink(missing_ok=True)  # of a writer before

    def made() -> dict[str, str] | None:
        known = read_json(paths.mlflow) or {}
        if known.get("uri") != record["uri"] or "final" in known:
            return None  # of a store before, or of an end before
        return {
            "MLFLOW_TRACKING_URI": str(record["uri"]),
            "MLFLOW_RUN_ID": known["run_id"],
            "MLFLOW_EXPERIMENT_ID": known["experiment_id"],
            "MLFLOW_EXPERIMENT_NAME": str(record["experiment"]),
        }

    return _answered(paths, made, watch, _MADE_WITHIN, "the script's run could not be made")


def figures(
    paths: RunPaths, watch: Callable[[], None], patience: float = PATIENCE
) -> tuple[dict[str, float], int]:
    """The last value of each metric that a run has in MLflow, and the last step of any.

    Args:
        watch: as in `handed_over`.
        patience: in seconds.

    Raises:
        TrackingError: MLflow is away.
    """

    def told() -> dict[str, Any] | None:
        known = read_json(paths.figures) or {}
        return known if "metrics" in known else None

    write_json(paths.figures, {"asked": True})
    try:
        known = _answered(paths, told, watch, patience, "what the script has logged could not be read")
    finally:
        paths.figures.unlink(missing_ok=True)
    return known["metrics"], known["step"]


_Answer = TypeVar("_Answer")


def _answered(
    paths: RunPaths, look: Callable[[], _Answer | None], watch: Callable[[], None], patience: float, what: str
) -> _Answer:
    began = time.monotonic()
    while (found := look()) is None:
        watch()
        told = read_json(paths.refusal) or {}
        waited = time.monotonic() - began
        if told.get("lasting") or waited > (min(patience, _AWAY) if told else patience):
            why = told.get("reason") or f"MLflow has not answered in {patience:g} s"
            raise TrackingError(f"{what}: {why}", hint="Mend that, or say another tracking.uri.")
        time.sleep(_LOOK)
    return found


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
