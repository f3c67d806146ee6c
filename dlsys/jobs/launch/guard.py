"""Runs one command; what it started ends with it, and all of it when its starter is gone.

    python -m dlsys.jobs.launch.guard LOG COMMAND...

Standard input is the line to the starter: `end 15 2` is signal 2 to all processes and, 15 s later,
SIGKILL; where it closes, SIGKILL at once. Standard output gets the exit code, negative for a signal.

Ray kills the children and the process group of a worker that dies, and then nobody could look after
what a command has started in turn. So this process leaves both.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil

from dlsys.processes import kill

# <linux/prctl.h>
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127  # as shells say it
_LOOK = 0.05

_prctl = ctypes.CDLL(None).prctl


def main() -> None:
    log, *command = sys.argv[1:]
    if os.fork():
        os._exit(0)
    os.setsid()
    # Orphans of the command become this process's children, also those with a session of their own.
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *args: None)  # ignored by a handler: the command inherits none
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # Ray blocks SIGINT in its workers
    print(_run(command, log), flush=True)  # noqa: T201 - the starter reads it


def _run(command: list[str], log: str) -> int:
    with open(log, "ab", buffering=0, opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                # Should this process be killed itself.
                preexec_fn=lambda: _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
            )
        except OSError as error:
            file.write(f"{command[0]}: {error.strerror}\n".encode())
            return _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE
    deadline = _attend(process)
    if process.poll() is None:
        process.kill()
    code = process.wait()
    while (family := _family()) and time.monotonic() < deadline:
        time.sleep(_LOOK)
    while family:
        kill(family)
        time.sleep(_LOOK)
        family = _family()
    return code


def _attend(process: subprocess.Popen[bytes]) -> float:
    """Waits for the command's end, or that of its time; until when what it has left may go on."""
    handle, deadline = os.pidfd_open(process.pid), float("inf")
    while time.monotonic() < deadline:
        left = None if deadline == float("inf") else deadline - time.monotonic()
        ready = select.select([0, handle], [], [], left)[0]
        if handle in ready:
            return 0.0 if deadline == float("inf") else deadline
        if 0 in ready:
            said = os.read(0, 100).split()
            if not said:
                break
            deadline = time.monotonic() + float(said[1])
            for member in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    member.send_signal(int(said[2]))
    return 0.0


def _family() -> list[psutil.Process]:
    """What an ended command has left."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return psutil.Process().children(recursive=True)


if __name__ == "__main__":
    main()
