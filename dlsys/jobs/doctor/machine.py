"""This machine: cores, memory, disks, limits and GPUs."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from dlsys.cluster.provider import Finding
from dlsys.jobs.launch.memory import limit
from dlsys.paths import home

_SHM = Path("/dev/shm")
# In GB. Ray's object store takes 0.1 of shared memory, and torch's loaders pass batches through it.
_MEMORY, _SHARED = 2.0, 0.5
_DISK_WARN, _DISK = 5.0, 0.5
_FILES = 1024
# Of NVIDIA's, of AMD's, and in Windows' Linux.
_GPUS = ("nvidia[0-9]*", "kfd", "dxg")


def processors() -> Iterator[Finding]:
    """Cores and memory, as far as this process may use them."""
    cores, memory = len(os.sched_getaffinity(0)), limit() / 1e9
    free = min(psutil.virtual_memory().available / 1e9, memory)
    said = f"{cores} CPU cores, {memory:.1f} GB of memory, of which {free:.1f} free"
    mend = "" if free >= _MEMORY else f"A run with Ray needs {_MEMORY:g} GB: end what else uses memory."
    yield Finding(not mend, said, mend, serious=False)


def shared_memory() -> Iterator[Finding]:
    """Where processes on this machine pass data to one another."""
    if why := _refusal(_SHM):
        yield Finding(False, f"{_SHM} cannot be written: {why}", "Mount a tmpfs there, of 1 GB or more.")
        return
    free = shutil.disk_usage(_SHM).free / 1e9
    mend = "" if free >= _SHARED else "Make it larger; in a container: docker run --shm-size=1g."
    yield Finding(not mend, f"{_SHM} has {free:.1f} GB free", mend, serious=False)


def open_files() -> Iterator[Finding]:
    """How many files a process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    endless = resource.RLIM_INFINITY
    good = soft == endless or soft >= _FILES
    said = f"a process may open {'any number of' if soft == endless else soft} files"
    most = "unlimited" if hard == endless else hard
    yield Finding(good, said, "" if good else f"ulimit -n {most}", serious=False)


def disks() -> Iterator[Finding]:
    """Where runs and temporary files go."""
    for what, place, variable in (
        ("runs", home(), "DLSYS_HOME"),
        ("temporary files", Path(os.environ.get("TMPDIR") or "/tmp"), "TMPDIR"),
    ):
        there = next(folder for folder in [place, *place.parents] if folder.exists())
        if why := _refusal(there):
            yield Finding(False, f"{place}, for {what}, cannot be written: {why}", f"Set {variable}.")
            continue
        free = shutil.disk_usage(there).free / 1e9
        mend = "" if free >= _DISK_WARN else f"Make room, or set {variable} to another disk."
        yield Finding(not mend, f"{place}, for {what}, has {free:.0f} GB free", mend, serious=free < _DISK)


def gpus() -> Iterator[Finding]:
    """GPUs, as torch sees them."""
    # Without one, torch need not be asked, which takes seconds to import.
    if not any(any(Path("/dev").glob(name)) for name in _GPUS):
        yield Finding(True, "this machine has no GPU")
        return
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda or torch.version.hip
        what = f"torch {torch.__version__} does not see this machine's GPU"
        mend = (
            "See nvidia-smi, and CUDA_VISIBLE_DEVICES." if built else "It is built for CPUs: install another."
        )
        yield Finding(False, what, mend, serious=False)
        return
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        yield Finding(True, f"GPU {index} is {about.name} with {about.total_memory / 1e9:.0f} GB")
    version = ""
    if torch.distributed.is_nccl_available():
        version = ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]
    said = f"torch {torch.__version__}, CUDA {torch.version.cuda}, NCCL {version or 'is missing'}"
    yield Finding(
        bool(version), said, "" if version else "Several GPUs need a torch with NCCL.", serious=False
    )
    if not shutil.which("ninja"):
        what = "ninja is missing: the offload of zero is not possible"
        yield Finding(False, what, "pip install ninja", serious=False)


def _refusal(folder: Path) -> str:
    """Why no file can be made in a folder; nothing where one can, which is gone again."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return str(error.strerror).lower()
