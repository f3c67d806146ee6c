"""Who this worker is among how many."""

from __future__ import annotations

import torch
from torch.distributed.distributed_c10d import Backend, BackendConfig

from dlsys.train.world import World, backends


def test_workers_with_gpus_send_from_both_memories() -> None:
    """As torch reads it: without gloo, what fsdp offloads could not be reduced."""
    found = BackendConfig(Backend(backends("cuda"))).get_device_backend_map()
    assert {device: str(found[device]) for device in ("cpu", "cuda")} == {"cpu": "gloo", "cuda": "nccl"}
    assert str(BackendConfig(Backend(backends("cpu"))).get_device_backend_map()["cpu"]) == "gloo"


def test_one_worker_has_no_backend() -> None:
    world = World()
    assert (world.size, world.backend, world.is_main) == (1, "", True)
    assert world.sum(torch.ones(2)).tolist() == [1.0, 1.0]
    assert world.max(3.0) == 3.0
