"""One worker of one attempt, whoever started it."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dlsys.data import Splits
from dlsys.data import load as load_data
from dlsys.errors import DlsysError, RunError, WorkerDiedError, WorkloadError
from dlsys.jobs.launch import memory
from dlsys.jobs.launch.assignment import Assignment, report, report_error
from dlsys.jobs.ownership import check_fence, driver_alive
from dlsys.own.frames import user_traceback
from dlsys.paths import RunPaths
from dlsys.registry import import_string
from dlsys.spec.data import Source
from dlsys.spec.rl.job import Job
from dlsys.track.spool import Spool
from dlsys.train.checkpoint import CheckpointStore
from dlsys.train.engine import Surroundings
from dlsys.train.loop import Result
from dlsys.train.ps.wire import Servers
from dlsys.train.watchdog import EXIT_CODE, Watchdog
from dlsys.train.world import World

Engine = Callable[[Job, World, Surroundings], Result]


def work(
    assignment: Assignment,
    world: World,
    *,
    stop_requested: Callable[[], bool],
    on_hang: Callable[[str], None] | None = None,
    load: Callable[[Source, Path], Splits] = load_data,
) -> Result:
    """Trains as one worker; what goes wrong is also written down for the driver.

    Args:
        stop_requested: whether the run is asked to end early.
        on_hang: the watchdog's last call before it ends the process.
        load: gives the rows of a job's `data:`.

    Raises:
        DlsysError: the run failed.
    """
    # What runs beside training (a checkpoint's bookkeeping, mostly) gives Python back sooner than after
    # 5 ms, in which a small model makes two steps.
    sys.setswitchinterval(0.0005)
    paths = assignment.paths
    job = assignment.trained
    spool = Spool(paths.spool / f"rank-{world.rank}.jsonl")
    spool.place(socket.gethostname(), memory.limit())
    store = CheckpointStore(
        paths.checkpoints,
        keep=job.checkpoint.keep,
        before_commit=lambda: check_fence(assignment.owner_paths, assignment.fence),
        note=spool.note,
    )
    stacks = assignment.attempt_folder(paths.stacks)
    stacks.mkdir(parents=True, exist_ok=True)

    def hang(text: str) -> None:
        report(assignment, world.rank, "hang", text)
        if on_hang is not None:
            on_hang(text)
        os._exit(EXIT_CODE)

    try:
        with Watchdog(
            stacks, world.rank, world.size, limit=job.failure.hang_after, note=spool.note, on_hang=hang
        ) as watchdog:
            around = Surroundings(
                folder=Path(assignment.folder),
                recorder=spool,
                store=store,
                artifacts=paths.artifacts,
                stop_requested=stop_requested,
                beat=watchdog.beat,
                servers=Servers(**assignment.servers) if assignment.servers else None,
                pause=assignment.pause,
                tested=assignment.tested,
                load=load,
            )
            engine: Engine = import_string(job.ENGINE)
            return engine(job, world, around)
    except Exception as error:
        translated = (
            memory.of_this_process(error, world.rank, job) if memory.is_shortage(error) else translate(error)
        )
        if not isinstance(translated, DlsysError):
            translated = _kept(error, paths.logs / f"rank-{world.rank}.log")
        if world.size > 1:
            report_error(assignment, world.rank, translated)
        if translated is error:
            raise
        raise translated from error
    finally:
        if lost := spool.close():
            sys.stderr.write(f"{lost} records could not be written to {spool.path}\n")


def translate(error: Exception) -> Exception:
    """torch's, the operating system's and the user's errors, as ours."""
    if isinstance(error, DlsysError):
        return error
    text = str(error).strip().splitlines()[0] if str(error).strip() else ""
    lost = ("Connection closed by peer", "Connection reset by peer", "Read error", "Broken pipe", "gloo")
    if isinstance(error, RuntimeError) and any(sign in text for sign in lost):
        return WorkerDiedError("lost another worker of this run")
    own = user_traceback(error)
    if own:
        return WorkloadError(f"your code raised {type(error).__name__}: {text}", traceback=own)
    if isinstance(error, OSError) and error.strerror:
        return RunError(f"{error.filename or 'the system'}: {error.strerror}")
    return error


def _kept(error: Exception, log: Path) -> RunError:
    """An error of a library's, in a line; all of it goes to the worker's log."""
    with suppress(OSError), open(log, "a", encoding="utf-8") as file:
        file.write("".join(traceback.format_exception(error)))
    lines = str(error).strip().splitlines() or [""]
    return RunError(f"{type(error).__name__}: {lines[0][:500]}", hint=f"Where that was: {log}")


def watch_driver(owner: RunPaths, fence: int) -> None:
    """Ends this process soon after the driver of this fence is gone: nobody would hear of its work."""

    def watch() -> None:
        while driver_alive(owner, fence):
            time.sleep(1.0)
        os._exit(0)

    threading.Thread(target=watch, name="dlsys-driver-watch", daemon=True).start()


def log_to_file(path: Path) -> None:
    """Sends this process's stdout and stderr, of C++ code too, to the worker's log."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115 - this process's own
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
