"""What torchrun tells a process by its environment (torch 2.13, `LocalElasticAgent._start_workers`)."""

from __future__ import annotations

import os
from collections.abc import Mapping

from dlsys.jobs.launch.assignment import Assignment
from dlsys.spec.script.job import ScriptJob


def told_by_torchrun(place: Mapping[str, str], job: ScriptJob, assignment: Assignment) -> dict[str, str]:
    """All variables of one rank.

    Args:
        place: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, NODE_RANK, MASTER_ADDR and MASTER_PORT.
        job: says how many CPUs it has, and how often all ranks may be started again.
        assignment: the attempt.
    """
    nodes = int(place["WORLD_SIZE"]) // int(place["LOCAL_WORLD_SIZE"])
    threads = {**os.environ, **job.env}.get("OMP_NUM_THREADS", str(max(1, int(job.resources.cpus))))
    return {
        **place,
        "GROUP_RANK": place["NODE_RANK"],
        "GROUP_WORLD_SIZE": str(nodes),
        "ROLE_NAME": "default",
        "ROLE_RANK": place["RANK"],
        "ROLE_WORLD_SIZE": place["WORLD_SIZE"],
        "TORCHELASTIC_RESTART_COUNT": str(assignment.attempt - 1),
        "TORCHELASTIC_MAX_RESTARTS": str(job.failure.retries),
        "TORCHELASTIC_RUN_ID": assignment.paths.id,
        # torchrun's own process may hold the ranks' store; here it is rank 0, as without torchrun.
        "TORCHELASTIC_USE_AGENT_STORE": "False",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": os.environ.get("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1"),
        "OMP_NUM_THREADS": threads,
    }
