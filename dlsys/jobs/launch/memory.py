"""Workers that run out of memory: how one knows, and what is said."""

from __future__ import annotations

import resource
import socket
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from dlsys.errors import DlsysError, OutOfMemoryError
from dlsys.paths import RunPaths
from dlsys.spec.rl.job import Job
from dlsys.track.spool import records

HINT = (
    "Use a smaller batch_size, gradient.accumulate for the same batch in smaller parts, "
    "or a strategy that shards the model (fsdp, zero)."
)
_SIGNS = ("can't allocate memory", "out of memory", "unable to allocate", "cannot allocate memory")


def is_shortage(error: BaseException) -> bool:
    """Whether an error of Python's, numpy's, torch's or the system's says that memory is used up."""
    told = not isinstance(error, DlsysError) and any(sign in str(error).lower() for sign in _SIGNS)
    return told or isinstance(error, MemoryError)


def of_this_process(error: BaseException, rank: int, job: Job) -> OutOfMemoryError:
    """What is known of a worker, in itself, that could not get memory."""
    lines = str(error).strip().splitlines()
    why = lines[0] if lines else type(error).__name__
    on_gpu = "cuda" in why.lower() and "torch" in sys.modules
    if on_gpu:
        import torch

        used, total = float(torch.cuda.max_memory_reserved()), float(torch.cuda.mem_get_info()[1])
    else:
        used, total = peak(), limit()
    place = socket.gethostname()
    what = "the GPU's " if on_gpu else ""
    return OutOfMemoryError(_sentence(rank, place, used / 1e9, total / 1e9, what, job, why), hint=HINT)


def of_a_dead_one(paths: RunPaths, rank: int, job: Job, killer: str) -> str:
    """What is known of a worker that was killed for memory: what it wrote down while it lived."""
    host, total, used = "an unknown node", 0.0, 0.0
    for record, _ in records(paths.spool / f"rank-{rank}.jsonl"):
        host, total = record.get("host", host), record.get("memory", total)
        used = record.get("m", {}).get(f"system/rank{rank}/peak_memory_mb", used)
    return _sentence(rank, host, used / 1e3, total / 1e9, "", job, f"{killer} killed it")


def _sentence(rank: int, host: str, used: float, total: float, what: str, job: Job, why: str) -> str:
    return (
        f"out of memory: rank {rank} on {host} used {used:.1f} GB of {what}{total:.1f} GB "
        f"({job.described}): {why}"
    )


def peak() -> float:
    """The most bytes that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def limit() -> float:
    """The bytes that this process may hold: the machine's, a container's, or those of `ulimit`."""
    found = [float(psutil.virtual_memory().total)]
    allowed = resource.getrlimit(resource.RLIMIT_AS)[0]
    if allowed != resource.RLIM_INFINITY:
        found.append(float(allowed))
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        # In a container, its own group stands at the top; "max" is no number.
        with suppress(OSError, ValueError):
            found.append(float(Path("/sys/fs/cgroup", name).read_text()))
    return min(found)


def kernel_kills() -> int:
    """How many processes this machine's kernel has killed for memory since it started."""
    with suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
