"""Fully sharded data parallel: torch's FSDP2, `fully_shard` (Zhao et al. 2023, arXiv:2304.11277).

As in ZeRO-3 (Rajbhandari et al. 2019, arXiv:1910.02054), every worker keeps 1/n of each parameter, of
its gradient and of its optimizer's state. Before a block of the model runs, all workers gather its
parameters; behind it they free them again, and gather them once more for its backward pass, after
which the block's gradients are averaged and scattered. Bytes sent by each worker and step, for
parameters of S bytes: (n−1)/n·S for each of the three.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.fsdp._fully_shard._fsdp_api import AllGather, ReduceScatter
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._pytree import tree_map_only
from torch.utils.checkpoint import checkpoint

from dlsys.data.loader import MicroBatch, StepBatch
from dlsys.errors import UsageError
from dlsys.spec.strategy import FSDP
from dlsys.train.strategies.base import State, StepResult
from dlsys.train.strategies.single import SingleStrategy
from dlsys.train.strategies.traffic import Traffic
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
        for name, parameter in model.named_parameters():
            if parameter.dim() == 0:
                raise UsageError(
                    f"strategy: fsdp cuts parameters along their first dim, and {name} has none: "
                    "give it the shape (1,), or say ddp"
                )
        options, card = self._options, self._parts.workload.card
        blocks = _blocks(model, card.blocks if card else ())
        if options.checkpoint_activations:
            for block in blocks:
                if not any(inner in blocks for inner in block.modules() if inner is not block):
                    _checkpoint(block)
        self._traffic = Traffic()
        mesh, precision = self._mesh(), self.precision()
        if precision.param_dtype is not None:
            # Their running statistics are fp32, and the kernels want one type.
            norms = [module for module in model.modules() if isinstance(module, _NormBase)]
            for module in norms:
                self._shard(module, mesh, MixedPrecisionPolicy(), reshard=options.reshard)
            blocks = [block for block in blocks if block not in norms]
        for block in blocks:
            self._shard(block, mesh, precision, reshard=options.reshard)
        # Backward follows the root's forward at once: what it gathered would be gathered again.
        self._root = _Root(model)
        self._shard(self._root, mesh, precision, reshard=False)
        # FSDP settles types at its first forward, and wants all that is trained to ask for gradients.
        self._root(lambda: None)
        self._free()
        return model

    def _free(self) -> None:
        """Frees what is gathered, and puts the model's own shards in its place."""
        for module in self._root.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def precision(self) -> MixedPrecisionPolicy:
        """What parameters are gathered as and gradients are averaged as.

        Autocast computes the same either way; on GPUs half the bytes travel and wait for backward.
        """
        if self._parts.dtype is None or self._parts.world.device.type == "cpu":
            return MixedPrecisionPolicy()
        return MixedPrecisionPolicy(
            param_dtype=self._parts.dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
        )

    def _mesh(self) -> DeviceMesh:
        world, replicas = self._parts.world, self._options.replicas
        if replicas == 1:
            return init_device_mesh(world.device.type, (world.size,), mesh_dim_names=("shard",))
        shape = (replicas, world.size // replicas)
        return init_device_mesh(world.device.type, shape, mesh_dim_names=("replicate", "shard"))

    def _shard(
        self, module: nn.Module, mesh: DeviceMesh, precision: MixedPrecisionPolicy, *, reshard: bool
    ) -> None:
        module.register_forward_hook(_own_memory)
        offload = CPUOffloadPolicy() if self._options.offload else OffloadPolicy()
        sharded = fully_shard(
            module, mesh=mesh, reshard_after_forward=reshard, mp_policy=precision, offload_policy=offload
        )
        sharded.set_custom_all_gather(_AllGather(self._traffic))
        sharded.set_custom_reduce_scatter(_ReduceScatter(self._traffic, self._options.replicas))

    def wrap(self, module: nn.Module) -> nn.Module:
        module.forward = partial(self._root, module.forward)
        return module

    @contextmanager
    def accumulating(self, module: nn.Module) -> Iterator[None]:
        root = cast(FSDPModule, self._root)
        root.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            root.set_requires_gradient_sync(True)

    def train_step(self, batch: StepBatch, step: int, hyper: Mapping[str, float | None]) -> StepResult:
        if not self._model.training:
            # What evaluation left gathered may not ask for the gradients that this step needs.
            self._free()
        with self._traffic.step():
            return super().train_step(batch, step, hyper)

    def evaluate_step(self, micro: MicroBatch, carry: Carry) -> tuple[dict[str, Tensor], Carry]:
        if self._model.training:
            self._parts.world.share_buffers(self._model)
        found: tuple[dict[str, Tensor], Carry] = self._root(super().evaluate_step, micro, carry)
        return found

    def state_out(self) -> State:
        """The whole state in the CPU's memory of rank 0; on the others, their carried state alone."""
        state = super().state_out()
        model = tree_map_only(Tensor, self._whole, state.model)
        optimizers = tree_map_only(Tensor, self._whole, state.optimizers)
        if not self._parts.world.is_main:
            return State({}, {}, state.local)
        return State(model, optimizers, state.local)

    def _whole(self, value: Tensor) -> Tensor | None:
        if isinstance(value, DTensor):
            value = value.full_tensor()
        return value.cpu() if self._parts.world.is_main else None

    def state_in(self, state: State) -> None:
        live = self._model.state_dict()
        model = {name: _cut_like(value, live.get(name)) for name, value in state.model.items()}
        optimizers = {
            phase: {
                **saved,
                "state": {
                    name: {key: _cut_like(value, live.get(name)) for key, value in values.items()}
                    for name, values in saved["state"].items()
                },
            }
            for phase, saved in state.optimizers.items()
        }
        super().state_in(State(model, optimizers, state.local))

    def communication(self) -> Mapping[str, float]:
        """Means over the steps since it was last asked; on GPUs, communication runs beside the rest."""
        timed = self._parts.world.device.type == "cpu" and self._options.replicas == 1
        return self._traffic.means(timed=timed)


class _Root(nn.Module):
    """Holds what no block does, and keeps it gathered while a workload uses its model.

    A workload may call the model, parts of it or none of its forward methods: FSDP needs one module
    whose forward surrounds it all.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Any, *arguments: Any) -> Any:
        return function(*arguments)


def _blocks(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """The modules that are gathered one at a time, inner ones first.

    They are those named or, without names, the model's children; besides, the members of every
    `ModuleList`, which is where models keep layers of a kind. Modules that share a parameter with
    another stay with the root.
    """
    chosen = {model.get_submodule(name) for name in names} or set(model.children())
    containers = {module for module in model.modules() if isinstance(module, nn.ModuleList | nn.ModuleDict)}
    chosen |= {member for container in containers for member in container.children()}
    blocks = [module for module in reversed(list(model.modules())) if module in chosen - containers]
    owners: dict[nn.Parameter, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(parameter, set()).add(name)
    return [
        block
        for block in blocks
        if (parameters := set(block.parameters())) and all(len(owners[p]) == 1 for p in parameters)
    ]


def _checkpoint(block: nn.Module) -> None:
    """Makes backward compute a block's activations again (Chen et al. 2016, arXiv:1604.06174)."""

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_kept(block)

    # A wrapper module would change the parameters' names.
    block.forward = partial(checkpoint, block.forward, use_reentrant=False, context_fn=contexts)


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """The second forward pass of a batch must not enter running statistics again."""
    norms = [module for module in block.modules() if isinstance(module, _NormBase)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def _own_memory(_module: nn.Module, _inputs: Any, outputs: Any) -> Any:
    """Copies outputs that are views: FSDP hangs its backward hook on them, and changing a view in
    place (`x += …`) would lose it silently."""
    return tree_map_only(
        Tensor, lambda t: t if t._base is None or not t.requires_grad else t.clone(), outputs
    )


def _cut_like(value: Any, live: Tensor | None) -> Any:
    """This worker's part of a whole tensor, if the live one is cut; every worker has the whole."""
    if isinstance(live, DTensor) and isinstance(value, Tensor) and value.shape == live.shape:
        return distribute_tensor(value, live.device_mesh, live.placements, src_data_rank=None)
    return value


class _Collective:
    def __init__(self, traffic: Traffic, replicas: int = 1) -> None:
        self._traffic, self._replicas = traffic, replicas

    def allocate(self, size: Sequence[Any], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)


class _AllGather(_Collective, AllGather):
    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: dist.ProcessGroup,
        async_op: bool = False,
    ) -> dist.Work | None:
        with self._traffic.sending(input_tensor.nbytes * (group.size() - 1)):
            work: dist.Work | None = dist.all_gather_single(
                output_tensor, input_tensor, group=group, async_op=async_op
            )
            return work


class _ReduceScatter(_Collective, ReduceScatter):
    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: dist.ProcessGroup,
        op: Any,
        async_op: bool = False,
    ) -> dist.Work | None:
        # With replicas, FSDP then averages the shard among the workers that hold the same one.
        between = 2 * (self._replicas - 1) / self._replicas * output_tensor.nbytes
        with self._traffic.sending(output_tensor.nbytes * (group.size() - 1) + between):
            if input_tensor.device.type != "cpu":
                work: dist.Work | None = dist.reduce_scatter_single(
                    output_tensor, input_tensor, op=op, group=group, async_op=async_op
                )
                return work
            # Gloo's own is an all-reduce of the whole: twice the bytes, three times the seconds.
            assert op in (dist.ReduceOp.AVG, dist.ReduceOp.SUM), op
            parts = torch.empty_like(input_tensor)
            dist.all_to_all_single(parts, input_tensor, group=group)
            # Of fp64, FSDP wants sums, and divides before and behind this.
            reduce = torch.mean if op == dist.ReduceOp.AVG else torch.sum
            reduce(parts.view(group.size(), -1), 0, out=output_tensor)
        return None
