"""Processes that outlive the one that started them: told apart by their time of birth, found by a mark."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import psutil


def alive(pid: int, created: float) -> bool:
    """Whether a process is still the one that was recorded, and no zombie."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - created) < 1 and _lives(process)
    except psutil.Error:
        return False


def end_processes(recorded: Iterable[Iterable[float]]) -> None:
    """Kills recorded processes, (pid, creation time), with all their descendants."""
    for pid, created in recorded:
        if not alive(int(pid), created):
            continue
        with suppress(psutil.Error):
            process = psutil.Process(int(pid))
            kill([*process.children(recursive=True), process])


def kill(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL to each, those that are gone already left out."""
    for process in processes:
        with suppress(psutil.Error):
            process.kill()


def marked(variable: str, value: str) -> list[psutil.Process]:
    """This user's processes in whose environment the variable has this value, and their descendants.

    A mark is inherited, so it finds whatever a program started, also what was orphaned since. (What
    gives itself a title overwrites its environment: it is found below its parent.)
    """
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(variable) == value:
                found |= {member.pid: member for member in [process, *process.children(recursive=True)]}
    return [process for process in found.values() if _lives(process)]


def lives(pid: int) -> bool:
    """Whether there is such a process, and no zombie."""
    try:
        return _lives(psutil.Process(pid))
    except psutil.Error:
        return False


def _lives(process: psutil.Process) -> bool:
    """Whether it is there, and no zombie: one whose parent never asks for it stays for ever."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
