"""Runs that a store has and this machine does not: their small files are brought, for them to be found."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dlsys.jobs.mirror.files import Files
from dlsys.jobs.mirror.journal import folder_of
from dlsys.jobs.mirror.objects import Objects
from dlsys.paths import RUN_ID, RunPaths

_AT_ONCE = 8


def recall(store: str, home: Path, prefix: str = "") -> None:
    """Brings all runs whose ids start with `prefix`, but for their figures, checkpoints and trials.

    Raises:
        StoreError: the store does not answer.
        UsageError: its address means nothing here.
    """
    objects = Objects(store)
    known = (RunPaths(home / "runs" / name) for name in objects.folders("runs") if RUN_ID.fullmatch(name))
    wanted = [run for run in known if run.id.startswith(prefix) and not _is_here(run)]

    def bring(run: RunPaths) -> None:
        run.make()
        (folder_of(run) / "store").write_text(store)
        Files(run, objects).pull_shown()

    with ThreadPoolExecutor(_AT_ONCE, "dlsys-recall") as pool:
        list(pool.map(bring, wanted))


def _is_here(run: RunPaths) -> bool:
    return run.record.exists() or run.submission.exists()
