"""Fully sharded data parallel: torch's FSDP2, `fully_shard` (Zhao et al. 2023, arXiv:2304.11277).

As in ZeRO-3 (Rajbhandari et al. 2019, arXiv:1910.02054), every worker keeps 1/n of each parameter, of
its gradient and of its optimizer's state. Before a block of the model runs, all workers gather its
parameters; behind it they free them again, and gather them once more for its backward pass, after
which the block's gradients are averaged and scattered. Bytes sent by each worker and step, for
parameters of S bytes: (n−1)/n·S for each of the three.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy

from dlsys.data.loader import MicroBatch, StepBatch
from dlsys.spec.train.strategy import FSDP
from dlsys.train.strategies.base import StepResult
from dlsys.train.strategies.blocks import blocks_of
from dlsys.train.strategies.phase import TrainedPhase
from dlsys.train.strategies.shards import Shards, gathered_as, require_dims
from dlsys.train.strategies.single import SingleStrategy
from dlsys.zoo.workload import Carry


class FSDPStrategy(SingleStrategy):
    @property
    def _options(self) -> FSDP:
        options = self._parts.job.strategy
        assert isinstance(options, FSDP)
        return options

    def parallelize(self, model: nn.Module) -> nn.Module:
        """Cuts the model's parameters in place; their names stay.

        Raises:
            UsageError: a parameter has no dim to be cut along.
        """
        require_dims(model, "say ddp")
        options = self._options
        blocks = blocks_of(model, self._parts.workload.card)
        self._shards = Shards(
            model,
            blocks,
            self._mesh(),
            self.precision(),
            self._traffic,
            "say ddp",
            reshard=options.reshard,
            offload=options.offload,
        )
        return model

    def precision(self) -> MixedPrecisionPolicy:
        """What parameters are gathered as and gradients are averaged as."""
        return gathered_as(self._precision)

    def _mesh(self) -> DeviceMesh:
        world, replicas = self._parts.world, self._options.replicas
        if replicas == 1:
            return init_device_mesh(world.device.type, (world.size,), mesh_dim_names=("shard",))
        shape = (replicas, world.size // replicas)
        return init_device_mesh(world.device.type, shape, mesh_dim_names=("replicate", "shard"))

    def wrap(self, module: nn.Module) -> nn.Module:
        return self._shards.wrap(module)

    def accumulating(self, module: nn.Module) -> AbstractContextManager[None]:
        return self._shards.accumulating()

    def reduce(self, trained: TrainedPhase) -> None:
        self._shards.settle(trained)

    def train_step(self, batch: StepBatch, step: int, hyper: Mapping[str, float | None]) -> StepResult:
        self._shards.prepare()
        return super().train_step(batch, step, hyper)

    def evaluate_step(self, micro: MicroBatch, carry: Carry) -> tuple[dict[str, Tensor], Carry]:
        self.prepare_to_measure()
        return self._shards.run(super().evaluate_step, micro, carry)

    def exchanged(self) -> None:
        self._shards.free()

    @property
    def keeps_whole(self) -> bool:
        return self._parts.world.is_main

    def communication(self) -> Mapping[str, float]:
        """Means over the steps since it was last asked; on GPUs, communication runs beside the rest."""
        timed = self._parts.world.device.type == "cpu" and self._options.replicas == 1
        return self._traffic.means(timed=timed)
