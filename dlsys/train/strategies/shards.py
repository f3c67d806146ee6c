"""What strategies share that cut parameters among data-parallel workers: torch's FSDP2, `fully_shard`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ParamSpec, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.fsdp._fully_shard._fsdp_api import AllGather, ReduceScatter
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._pytree import tree_map_only

from dlsys.errors import UsageError
from dlsys.train.precision import Precision
from dlsys.train.strategies.idle import Lockstep, counted
from dlsys.train.strategies.phase import TrainedPhase
from dlsys.train.traffic import Traffic

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Shards:
    """A model whose parameters are cut in place; so are, later, their gradients and optimizer's state.

    Args:
        model: its parameters' names stay. What tensor parallelism cut is cut once more.
        blocks: the modules that are gathered one at a time, inner ones first.
        mesh: the workers; with two axes, the first one's workers hold the same shards.
        precision: what parameters are gathered as and gradients are averaged as.
        traffic: counts what its collectives send.
        mend: what to do where workers come to different blocks.
        reshard: frees a block behind its forward pass.
        offload: keeps the shards in the CPU's memory.
    """

    def __init__(
        self,
        model: nn.Module,
        blocks: Sequence[nn.Module],
        mesh: DeviceMesh,
        precision: MixedPrecisionPolicy,
        traffic: Traffic,
        mend: str,
        *,
        reshard: bool = True,
        offload: bool = False,
    ) -> None:
        self._model, self._mesh, self._traffic, self._offload = model, mesh, traffic, offload
        everyone = mesh.get_group() if mesh.ndim == 1 else dist.group.WORLD
        assert everyone is not None, "several workers have a process group"
        self._everyone = everyone
        self._lockstep = Lockstep(everyone, torch.device(mesh.device_type), traffic, mend)
        self._used: set[str] = set()
        if precision.param_dtype is not None:
            # Their running statistics are fp32, and the kernels want one type.
            norms = [module for module in model.modules() if isinstance(module, _NormBase)]
            for module in norms:
                self._shard(module, MixedPrecisionPolicy(), reshard=reshard)
            blocks = [block for block in blocks if block not in norms]
        for block in blocks:
            self._shard(block, precision, reshard=reshard)
        # Backward follows the root's forward at once: what it gathered would be gathered again.
        self._root = _Root(model)
        self._shard(self._root, precision, reshard=False)
        self._watch(blocks)
        # FSDP settles types at its first forward, and wants all that is trained to ask for gradients.
        self._root(lambda: None)
        self.free()

    def _shard(self, module: nn.Module, precision: MixedPrecisionPolicy, *, reshard: bool) -> None:
        module.register_forward_hook(_own_memory)
        offload = CPUOffloadPolicy() if self._offload else OffloadPolicy()
        sharded = fully_shard(
            module,
            mesh=self._mesh,
            reshard_after_forward=reshard,
            mp_policy=precision,
            offload_policy=offload,
        )
        replicas = self._mesh.size(0) if self._mesh.ndim > 1 else 1
        sharded.set_custom_all_gather(_AllGather(self._traffic))
        sharded.set_custom_reduce_scatter(_ReduceScatter(self._traffic, replicas))

    def free(self) -> None:
        """Frees what is gathered, and puts the model's own shards in its place."""
        for module in self._root.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def _watch(self, blocks: Sequence[nn.Module]) -> None:
        """Notes which parameters backward comes to, and sees that all workers gather the same blocks."""
        # Where workers use different parameters, all average all of them, with zeros for those they lack.
        cast(FSDPModule, self._root).set_reduce_scatter_unused_params(True)
        held: dict[nn.Module, dict[str, tuple[nn.Module, str]]] = {}
        for name, _ in self._model.named_parameters():
            path, _, own = name.rpartition(".")
            owner = self._model.get_submodule(path)
            above = [self._model.get_submodule(path[:end]) for end in _ends(path)]
            holder = next((module for module in above if module in blocks), self._root)
            held.setdefault(holder, {})[name] = (owner, own)
        for holder, names in held.items():
            holder.register_forward_pre_hook(partial(self._listen, names))
        named = self._model.named_modules()
        self._lockstep.watch((name, module) for name, module in named if module in blocks)

    def _listen(self, names: dict[str, tuple[nn.Module, str]], _block: nn.Module, _inputs: Any) -> None:
        """Once a block is gathered: backward comes to other tensors than those that the optimizer has."""
        for name in [*names]:
            owner, own = names[name]
            gathered = owner._parameters[own]
            if gathered is not None and gathered.requires_grad:  # FSDP keeps it, and fills it anew
                gathered.register_post_accumulate_grad_hook(partial(self._came, name))  # type: ignore[no-untyped-call]
                del names[name]

    def _came(self, name: str, _gathered: Tensor) -> None:
        self._used.add(name)

    def settle(self, trained: TrainedPhase) -> None:
        """Behind a step's last backward pass: leaves no gradient where no worker has one."""
        used = [name in self._used for name, _ in trained.named]
        self._used.clear()
        counts = counted(used, self._everyone, trained.parameters[0].device, self._traffic)
        for parameter, count in zip(trained.parameters, counts, strict=True):
            if not count:
                parameter.grad = None

    def run(self, function: Callable[_P, _T], *arguments: _P.args, **named: _P.kwargs) -> _T:
        """Calls a function that uses the model or parts of it."""
        found: _T = self._root(function, *arguments, **named)
        self._lockstep.meet("the end of the model")
        return found

    def wrap(self, module: nn.Module) -> nn.Module:
        """A module that uses the model in its forward pass, made to do so by `run`."""
        module.forward = partial(self.run, module.forward)
        return module

    @contextmanager
    def accumulating(self) -> Iterator[None]:
        """Around backward passes whose gradients are not averaged yet, and stay whole."""
        root = cast(FSDPModule, self._root)
        root.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            root.set_requires_gradient_sync(True)

    def prepare(self) -> None:
        """Before a training step."""
        if not self._model.training:
            # What evaluation left gathered may not ask for the gradients that this step needs.
            self.free()


def _ends(path: str) -> list[int]:
    """Where a module's path and those of the modules around it end, the longest first."""
    return [len(path), *(index for index in reversed(range(len(path))) if path[index] == ".")] if path else []


def require_dims(model: nn.Module, mend: str) -> None:
    """Refuses a parameter that cannot be cut.

    Args:
        mend: what to do instead of giving it a dim.

    Raises:
        UsageError: a parameter has no dim to be cut along.
    """
    for name, parameter in model.named_parameters():
        if parameter.dim() == 0:
            raise UsageError(
                f"strategy: fully_shard cuts parameters along their first dim, and {name} has none: "
                f"give it the shape (1,), or {mend}"
            )


def gathered_as(precision: Precision) -> MixedPrecisionPolicy:
    """What parameters are gathered as and gradients are averaged as.

    Autocast computes the same either way; on GPUs half the bytes travel and wait for backward.
    """
    if precision.dtype is None or precision.device.type == "cpu":
        return MixedPrecisionPolicy()
    return MixedPrecisionPolicy(
        param_dtype=precision.dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )


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


def _own_memory(_module: nn.Module, _inputs: Any, outputs: Any) -> Any:
    """Copies outputs that are views: FSDP hangs its backward hook on them, and changing a view in
    place (`x += …`) would lose it silently."""
    return tree_map_only(
        Tensor, lambda t: t if t._base is None or not t.requires_grad else t.clone(), outputs
    )


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
