"""Tensor parallelism: single layers are cut among workers (Shoeybi et al. 2019, arXiv:1909.08053).

Neighbouring workers share one model and see the same rows; each such group takes its own part of
the global batch. The workload's `tensor_plan` says which layers are cut, and how; torch's DTensor
computes them. The other layers are whole on every worker, who all compute the same with them.

With `data: shard` the mesh is used along both axes: what a worker holds, of cut layers and of whole
ones, is cut once more among the workers that hold the same, by `fully_shard` on the axis `data`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.distributed.tensor.parallel.style import ParallelStyle

from dlsys.data.loader import MicroBatch, StepBatch
from dlsys.errors import UsageError
from dlsys.spec.card import Cut, uneven
from dlsys.spec.train import strategy as spec
from dlsys.train import seeding
from dlsys.train.collectives.mean import add_up, average, local
from dlsys.train.strategies.base import State, StepResult
from dlsys.train.strategies.blocks import blocks_of
from dlsys.train.strategies.cut import CutStrategy
from dlsys.train.strategies.phase import TrainedPhase
from dlsys.train.strategies.shards import Shards, gathered_as, require_dims
from dlsys.zoo.workload import Carry, Workload, nothing_of

_Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


class TensorStrategy(CutStrategy):
    """Cuts layers among neighbours; groups of neighbours are data parallel.

    Attributes:
        _shards: what the groups cut among each other; None where each has a whole copy.
    """

    _shards: Shards | None = None

    @property
    def _options(self) -> spec.Tensor:
        options = self._parts.job.strategy
        assert isinstance(options, spec.Tensor)
        return options

    @property
    def _size(self) -> int:
        """Workers that share a model."""
        return self._options.size or self._parts.world.size

    @property
    def data_place(self) -> tuple[int, int]:
        world = self._parts.world
        return world.rank // self._size, world.size // self._size

    def parallelize(self, model: nn.Module) -> nn.Module:
        """Cuts the layers of the workload's plan.

        Raises:
            UsageError: `size` does not divide the workers or what is to be cut, the plan names layers
                that are not there or cannot be cut so, or `data: shard` meets a parameter without dims.
        """
        world, size = self._parts.world, self._size
        assert world.size % size == 0, "checked with the file"
        plan = _plan(self._parts.workload)
        layers = _layers(model, plan)
        cuts = {name: replace(cut, units=_units(name, layer, cut)) for name, (layer, cut) in layers.items()}
        if wrong := uneven(cuts, size):
            raise UsageError(f"strategy.size: {wrong}")
        shape = (world.size // size, size)
        mesh = init_device_mesh(world.device.type, shape, mesh_dim_names=("data", "tensor"))
        self._data, self._group = mesh.get_group("data"), mesh.get_group("tensor")
        # Every worker has built the same weights: each takes its part, and none needs be sent.
        styles = {name: _STYLES[cut.style]() for name, cut in cuts.items()}
        parallelize_module(model, mesh["tensor"], styles, src_data_rank=None)
        for layer, cut in layers.values():
            layer.register_forward_hook(partial(self._count, cut.style))
        if self._options.data == "shard":
            mend = "leave data: shard out"
            require_dims(model, mend)
            blocks = blocks_of(model, self._parts.workload.card)
            policy = gathered_as(self._precision)
            self._shards = Shards(model, blocks, mesh["data"], policy, self._traffic, mend)
        return model

    def wrap(self, module: nn.Module) -> nn.Module:
        return self._shards.wrap(module) if self._shards else module

    def accumulating(self, module: nn.Module) -> AbstractContextManager[None]:
        return self._shards.accumulating() if self._shards else nullcontext()

    def _count(self, style: str, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Counts what a layer's forward and backward pass send, with rings."""
        part = (self._size - 1) / self._size
        if style != "column":  # An all-reduce sends twice what gathering does.
            sent = (2 if style == "row" else 1) * output.numel() * output.element_size()
            self._traffic.add(sent=part * sent)
        if style != "row" and inputs[0].requires_grad:
            whole = inputs[0].numel() * inputs[0].element_size()
            self._traffic.add(sent=part * (1 if style == "groups" else 2) * whole)

    def reduce(self, trained: TrainedPhase) -> None:
        if self._shards:  # which are averaged in backward already
            self._shards.settle(trained)
        elif self._data.size() > 1:
            average(trained.parameters, self._data, self._data.size(), self._traffic)

    def _whole_square(self, gradients: list[Tensor]) -> Tensor:
        square = super()._whole_square(gradients)
        if self._shards:
            add_up(square, self._data, self._traffic)
        return square

    def train_step(self, batch: StepBatch, step: int, hyper: Mapping[str, float | None]) -> StepResult:
        if self._shards:
            self._shards.prepare()
        result = super().train_step(batch, step, hyper)
        return replace(result, sums=self._once(result.sums))

    def evaluate_step(self, micro: MicroBatch, carry: Carry) -> tuple[dict[str, Tensor], Carry]:
        self.prepare_to_measure()
        evaluate = super().evaluate_step
        if self._shards:
            sums, carry = self._shards.run(evaluate, micro, carry)
        else:
            sums, carry = evaluate(micro, carry)
        return self._once(sums), carry

    def exchanged(self) -> None:
        if self._shards:
            self._shards.free()

    @property
    def _is_first(self) -> bool:
        """Whether this worker speaks for those that share its model."""
        return self._parts.world.rank % self._size == 0

    def _once(self, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        """The sums of the group's first worker; zeros on its others, who have the same."""
        return sums if self._is_first else nothing_of(sums, self._parts.workload.listed)

    def state_out(self) -> State:
        state = super().state_out()
        if not self._is_first:
            state.local["carry"] = {phase: {} for phase in state.local["carry"]}
        return state

    @property
    def keeps_whole(self) -> bool:
        return self._parts.world.is_main or not self._shards

    def state_in(self, state: State) -> None:
        super().state_in(state)
        # Layers that are whole must draw the same dropout on all who share the model; the state may
        # be of a strategy whose workers all drew their own.
        random = [seeding.random_state()]
        dist.broadcast_object_list(random, group=self._group, group_src=0)
        seeding.set_random_state(random[0])


class GroupsParallel(ParallelStyle):
    """Cuts a grouped convolution by its groups, as AlexNet's two GPUs did (Krizhevsky et al. 2012).

    Takes the whole input (rows, channels, …) and gives the whole output.
    """

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        assert isinstance(module, _Convolution)
        for name, parameter in list(module.named_parameters()):
            cut = distribute_tensor(parameter, device_mesh, [Shard(0)], src_data_rank=self.src_data_rank)
            module.register_parameter(name, nn.Parameter(cut, requires_grad=parameter.requires_grad))
        module.groups //= device_mesh.size()

        def forward(inputs: Tensor) -> Tensor:
            whole = DTensor.from_local(inputs, device_mesh, [Replicate()])
            mine = whole.redistribute(placements=[Shard(1)]).to_local()
            bias = None if module.bias is None else local(module.bias)
            output = module._conv_forward(mine, local(module.weight), bias)
            cut = DTensor.from_local(output, device_mesh, [Shard(1)])
            return cut.redistribute(placements=[Replicate()]).to_local()

        module.forward = forward  # type: ignore[assignment]
        return module


_STYLES: dict[str, Callable[[], ParallelStyle]] = {
    "column": ColwiseParallel,
    "row": RowwiseParallel,
    "gather": partial(ColwiseParallel, output_layouts=Replicate()),
    "groups": GroupsParallel,
}


def _plan(workload: Workload) -> Mapping[str, Cut]:
    card = workload.card
    if card is None:
        plan = workload.tensor_plan
    else:
        plan = card.tensor_plan(workload.options) if card.tensor_plan else {}
    if not plan:
        raise UsageError(
            f"strategy: tensor must know which layers to cut, and {type(workload).__name__} has no plan: "
            "give the Workload class a tensor_plan, or choose another strategy"
        )
    return plan


def _layers(model: nn.Module, plan: Mapping[str, Cut]) -> dict[str, tuple[nn.Module, Cut]]:
    """The layers that a plan names, in the plan's order."""
    uses = Counter(p for module in model.modules() for p in module.parameters(recurse=False))
    found = {}
    for pattern, cut in plan.items():
        named = {name: (m, cut) for name, m in model.named_modules() if fnmatchcase(name, pattern)}
        if not named:
            known = ", ".join(name for name, module in model.named_modules() if not [*module.children()])
            raise UsageError(f"tensor_plan: the model has no layer {pattern!r}. Known: {known}")
        for name, (layer, _) in named.items():
            if tied := [part for part, parameter in layer.named_parameters() if uses[parameter] > 1]:
                raise UsageError(
                    f"tensor_plan: another layer shares {name}.{tied[0]}, and its part would be another "
                    f"parameter: take {name} out of the plan"
                )
        found.update(named)
    return found


def _units(name: str, layer: nn.Module, cut: Cut) -> int:
    """How many outputs, inputs or groups there are to cut."""
    if isinstance(layer, nn.Linear) and cut.style != "groups":
        return layer.in_features if cut.style == "row" else layer.out_features
    if isinstance(layer, nn.Embedding) and cut.style in ("column", "gather"):
        return layer.embedding_dim
    if isinstance(layer, _Convolution) and cut.style == "groups":
        return layer.groups
    raise UsageError(
        f"tensor_plan: {name} is a {type(layer).__name__}, which {cut.style!r} cannot cut: column and gather "
        "cut nn.Linear and nn.Embedding, row cuts nn.Linear, groups a convolution with several groups"
    )
