"""What a worker holds: ZeRO-3's 1/n of parameters, gradients and Adam's moments, and nothing whole."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import in_workers, job
from torch.distributed.tensor import DTensor

from dlsys import data
from dlsys.data.loader import Loader, StepBatch
from dlsys.data.order import Order
from dlsys.registry import STRATEGIES
from dlsys.spec import TrainJob
from dlsys.spec.train.strategy_rules import data_shares
from dlsys.train.regularize import Regularizers
from dlsys.train.strategies import Parts
from dlsys.train.strategies.single import SingleStrategy
from dlsys.train.world import World
from dlsys.zoo.load import load_workload
from dlsys.zoo.workload import Loss

JOB = """
kind: train
name: test
workload: lenet-5
model: {width: 8}
data: {source: digits}
batch_size: 48
optimizer: {name: adam, lr: 0.001}
strategy: {name: fsdp}
stop: {steps: 2}
"""


def spec(workers: int, *overrides: str) -> TrainJob:
    return job(JOB, f"resources.workers={workers}", *overrides)


@pytest.mark.parametrize("workers", [2, 4])
def test_a_worker_holds_its_share(workers: int) -> None:
    for parameters, shards, live in in_workers(workers, held_after_steps, spec(workers)):
        # fp32: 4 bytes of weight, 4 of gradient, 8 of Adam's two moments.
        formula = (4 + 4 + 8) * parameters / workers
        assert shards == pytest.approx(formula, rel=0.05)
        # All that was made and is still there: no gathered copy is among it.
        assert live == pytest.approx(formula, rel=0.05)


@pytest.mark.parametrize(("more", "copies"), [({}, 2), ({"data": "shard"}, 1)], ids=["replicate", "shard"])
def test_on_a_mesh_a_worker_holds_its_share_along_both_axes(more: dict[str, str], copies: int) -> None:
    """2 × 2: a quarter of what `tensor` cuts, and half of the rest; twice that with copies."""
    described = spec(4, f"strategy={json.dumps({'name': 'tensor', 'size': 2, **more})}")
    shape = data.load(described.data, Path()).shape
    model = load_workload(described.workload, described.model, shape).build()
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    cut = sum(sizes[name] for name in ("dense1.0.weight", "dense1.0.bias", "dense2.0.weight"))
    for parameters, shards, live in in_workers(4, held_after_steps, described):
        formula = (4 + 4 + 8) * copies * (cut / 4 + (parameters - cut) / 2)
        assert live == pytest.approx(formula, rel=0.05)
        if copies == 1:
            assert shards == pytest.approx(formula, rel=0.05)


def held_after_steps(world: World, job: TrainJob) -> tuple[int, int, int]:
    """Parameters of the whole model; bytes of this worker's shards; bytes of all tensors it made."""
    splits = data.load(job.data, Path())
    batch = _batch(splits, job, world)
    before = _storages()
    strategy = _strategy(splits, job, world)
    for step in (1, 2):
        strategy.train_step(batch, step, {"lr": 0.001, "momentum": None})
    (trained,) = strategy._phases
    held = [tensor for parameter in trained.parameters for tensor in (parameter, parameter.grad)]
    held += [moment for state in trained.optimizer.state.values() for moment in state.values()]
    shards = sum(tensor.to_local().nbytes for tensor in held if isinstance(tensor, DTensor))
    live = sum(size for place, size in _storages().items() if place not in before)
    return sum(parameter.numel() for parameter in trained.parameters), shards, live


@pytest.mark.parametrize("reshard", [True, False])
def test_blocks_are_freed_behind_forward_when_asked(reshard: bool) -> None:
    for parameters, held in in_workers(2, held_before_backward, spec(2, f"strategy.reshard={reshard}")):
        whole = 4 * parameters
        # This worker's shards alone, or the gathered model besides.
        assert held == pytest.approx(whole / 2 if reshard else whole / 2 + whole, rel=0.05)


def held_before_backward(world: World, job: TrainJob) -> tuple[int, int]:
    """Parameters of the whole model, and bytes of parameters, cut or gathered, behind forward."""
    splits = data.load(job.data, Path())
    before = _storages(torch.nn.Parameter)
    strategy = _strategy(splits, job, world)
    found = []

    def objective(outputs: torch.Tensor, batch: Any) -> Loss:
        now = _storages(torch.nn.Parameter)
        found.append(sum(size for place, size in now.items() if place not in before))
        return type(workload).objective(workload, outputs, batch)

    workload = strategy._parts.workload
    workload.objective = objective  # type: ignore[method-assign]
    strategy.train_step(_batch(splits, job, world), 1, {"lr": 0.001, "momentum": None})
    return sum(parameter.numel() for parameter in strategy._phases[0].parameters), found[0]


def _strategy(splits: data.Splits, job: TrainJob, world: World) -> SingleStrategy:
    workload = load_workload(job.workload, job.model, splits.shape)
    strategy: SingleStrategy = STRATEGIES.load(job.strategy.name)()
    strategy.setup(Parts(job, workload, Regularizers(()), world))
    return strategy


def _batch(splits: data.Splits, job: TrainJob, world: World) -> StepBatch:
    order, shares = Order(len(splits.train), 48, "shuffled"), data_shares(job)
    rank = world.rank * shares // world.size
    return next(Loader(splits.train, order, rank=rank, size=shares).epoch(0))


def _storages(kind: type = torch.Tensor) -> dict[int, int]:
    """Bytes of the storages of this process's tensors of a kind, by their places in memory."""
    gc.collect()
    # By type first: asking any object for its class wakes torch's deprecated ones.
    tensors = [t for t in gc.get_objects() if issubclass(type(t), torch.Tensor) and isinstance(t, kind)]
    local = [t.to_local() if isinstance(t, DTensor) else t for t in tensors]
    return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in local}
