"""What torchrun tells a process by its environment (torch 2.13, `LocalElasticAgent._start_workers`)."""

from __future__ import annotations

from collections.abc import Mapping


def told_by_torchrun(
    place: Mapping[str, str], env: Mapping[str, str], *, run: str, cpus: float, restarts: int, most: int
) -> dict[str, str]:
    """All variables of one rank.

    Args:
        place: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, NODE_RANK, MASTER_ADDR and MASTER_PORT.
        env: its other variables, which may say what else is left to them.
        run: the run's id.
        cpus: how many it has; as many threads it computes with.
        restarts: how often all ranks have been started again.
        most: how often they may be.
    """
    nodes = int(place["WORLD_SIZE"]) // int(place["LOCAL_WORLD_SIZE"])
    return {
        **place,
        "GROUP_RANK": place["NODE_RANK"],
        "GROUP_WORLD_SIZE": str(nodes),
        "ROLE_NAME": "default",
        "ROLE_RANK": place["RANK"],
        "ROLE_WORLD_SIZE": place["WORLD_SIZE"],
        "TORCHELASTIC_RESTART_COUNT": str(restarts),
        "TORCHELASTIC_MAX_RESTARTS": str(most),
        "TORCHELASTIC_RUN_ID": run,
        # torchrun's own process may hold the ranks' store; here it is rank 0, as without torchrun.
        "TORCHELASTIC_USE_AGENT_STORE": "False",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": env.get("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1"),
        "OMP_NUM_THREADS": env.get("OMP_NUM_THREADS", str(max(1, int(cpus)))),
    }
