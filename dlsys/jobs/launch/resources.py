"""Whether a machine or a cluster can hold a job: asked before anything starts."""

from __future__ import annotations

import os

from dlsys.errors import ResourceError
from dlsys.spec.job import Resources


def check_fits(need: Resources, *, cpus: float, gpus: float, place: str) -> None:
    """Raises ResourceError when the job needs more than `place` has."""
    for what, each, have in (("CPUs", need.cpus, cpus), ("GPUs", need.gpus, gpus)):
        whole = need.workers * each
        if whole > have:
            raise ResourceError(
                f"resources: {need.workers} workers × {each:g} {what} = {whole:g}, but {place} has {have:g}",
                hint=f"Use fewer workers, or a cluster with {whole:g} {what} (--address).",
            )


def check_machine(need: Resources) -> None:
    """Raises ResourceError when the job needs more than this machine has."""
    gpus = 0.0
    if need.gpus:
        import torch

        gpus = float(torch.cuda.device_count())
    check_fits(need, cpus=float(len(os.sched_getaffinity(0))), gpus=gpus, place="this machine")
