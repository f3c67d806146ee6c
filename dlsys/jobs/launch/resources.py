"""Whether a machine or a cluster can hold a job: asked before anything starts."""

from __future__ import annotations

import os

from dlsys.errors import ResourceError
from dlsys.spec.rl.job import RLResources
from dlsys.spec.train.job import Processes


def check_fits(need: Processes | RLResources, *, cpus: float, gpus: float, place: str) -> None:
    """Raises ResourceError when the job needs more than `place` has."""
    for what, have in (("CPUs", cpus), ("GPUs", gpus)):
        whole = sum(bundle.get(what[:-1], 0.0) for bundle in need.bundles)
        if whole > have:
            raise ResourceError(
                f"resources: {need.described(what)} = {whole:g}, but {place} has {have:g}",
                hint=f"Use fewer workers, or a cluster with {whole:g} {what} (--address).",
            )


def check_machine(need: Processes | RLResources) -> None:
    """Raises ResourceError when the job needs more than this machine has."""
    gpus = 0.0
    if need.gpus:
        import torch

        gpus = float(torch.cuda.device_count())
    check_fits(need, cpus=float(len(os.sched_getaffinity(0))), gpus=gpus, place="this machine")


def bind_cores(cpus: float, local_rank: int, local_size: int) -> None:
    """Gives this worker's thread, and those it starts from now on, cores of their own.

    Only where the workers take the whole machine, each whole cores: they would wander, and two that
    share a core for a moment hold all others up. Elsewhere other runs may have the same thought.
    """
    cores = sorted(os.sched_getaffinity(0))
    each = int(cpus)
    if local_size > 1 and each == cpus and each * local_size == len(cores):
        os.sched_setaffinity(0, cores[local_rank * each : (local_rank + 1) * each])
