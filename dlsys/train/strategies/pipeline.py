"""Pipeline: the model's blocks are dealt out to stages (Huang et al. 2019, GPipe, arXiv:1811.06965).

Workers form rows; each row holds one model, each of its workers some of the blocks. A row's batch is
cut into pieces that flow through its stages, in the order of one of torch.distributed.pipelining's
schedules. Several rows are data parallel. Bytes sent by each worker and step: the activations that
leave its stages, the gradients of those that entered them, and with r rows 2·(r−1)/r times the size
of its own parameters' gradients.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.pipelining import Schedule1F1B, ScheduleGPipe, ScheduleInterleaved1F1B
from torch.utils._pytree import tree_map_only

from dlsys.data.loader import MicroBatch, StepBatch
from dlsys.errors import UsageError
from dlsys.spec.train.strategy import Pipeline
from dlsys.train import regularize
from dlsys.train.collectives.mean import average
from dlsys.train.strategies import whole
from dlsys.train.strategies.base import State
from dlsys.train.strategies.phase import TrainedPhase
from dlsys.train.strategies.single import SingleStrategy
from dlsys.train.strategies.stage import Blocks, Stage, finish, model_input
from dlsys.zoo.workload import Batch, Carry, Workload, nothing_of, rows_of


class PipelineStrategy(SingleStrategy):
    """Each worker keeps its own blocks; all workers of a row get the same rows of data.

    The worker of the last stage alone knows loss and measures; the others report zeros.
    """

    def parallelize(self, model: nn.Module) -> nn.Module:
        options, world = self._parts.job.strategy, self._parts.world
        assert isinstance(options, Pipeline)
        _check(self._parts.workload, model)
        self._options = options
        blocks = dict(model.named_children())
        sizes = [sum(p.numel() for p in block.parameters()) for block in blocks.values()]
        try:
            stages = options.deal(list(blocks), world.size, sizes)
        except ValueError as error:
            raise UsageError(f"strategy.{error}") from None
        row = options.stages or world.size
        _check_shares(model, [[name for stage in stages[i::row] for name in stage] for i in range(row)])
        mesh = init_device_mesh(
            world.device.type, (world.size // row, row), mesh_dim_names=("replica", "stage")
        )
        self._replicas, self._row = mesh.get_group("replica"), mesh.get_group("stage")
        own = range(world.rank % row, len(stages), row)
        self._first, self._last = 0 in own, len(stages) - 1 in own
        self._stages = [
            (index, nn.Sequential(OrderedDict((name, blocks[name]) for name in stages[index])))
            for index in own
        ]
        self._stage_count = len(stages)
        self._schedules: dict[tuple[int, bool], Any] = {}
        self._layouts: dict[str, dict[str, torch.Size]] = {}
        self._names = list(model.state_dict())
        held = nn.Sequential(
            OrderedDict(block for _, stage in self._stages for block in stage.named_children())
        )
        self._buffers = {name: _mark(buffer) for name, buffer in held.named_buffers()}
        return held

    @property
    def data_place(self) -> tuple[int, int]:
        return self._replicas.rank(), self._replicas.size()

    def _backward(self, trained: TrainedPhase, batch: StepBatch) -> dict[str, Tensor]:
        trained.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for micro in batch.micros:
            self._micro = micro
            self._found: dict[int, dict[str, Tensor]] = {}
            self._flow(micro.batch, training=True)
            self._refuse_changes()
            for found in self._found.values():
                for name, part in found.items():
                    sums[name] = sums[name] + part if name in sums else part
        return self._on_all("train", sums)

    def _refuse_changes(self) -> None:
        """Refuses what training writes into buffers.

        A stage sees a few rows at a time and, to learn its shapes, first of all memory that nobody has
        filled: what it keeps of those is not what one worker keeps.

        Raises:
            UsageError: a buffer has changed.
        """
        for name, buffer in self._model.named_buffers():
            if self._buffers.get(name) != _mark(buffer):
                raise UsageError(
                    f"strategy: training changes the buffer {name}, and in a pipeline a block sees a few "
                    "rows at a time: use a block that keeps nothing of its inputs, or another strategy"
                )

    def _flow(self, batch: Batch, *, training: bool) -> Tensor | None:
        """Sends a batch through the row; the model's outputs where the last stage is, if not training.

        The batch is padded to pieces of one size. The rows that it is padded with reach no loss, so
        their gradient is 0.
        """
        inputs = model_input(self._parts.workload, batch)
        real = len(inputs)
        size = -(-real // self._options.micro_batches)
        rows = size * self._options.micro_batches
        if rows > real:
            inputs = torch.cat([inputs, inputs[:1].expand(rows - real, *inputs.shape[1:])])
        schedule = self._schedule(size, training)
        with self._traffic.sending():
            outputs: Tensor | None = schedule.step(
                *([inputs] if self._first else []),
                target=torch.arange(rows) if self._last and training else None,
                return_outputs=not training,
            )
        return outputs if outputs is None else outputs[:real]

    def _schedule(self, size: int, training: bool) -> Any:
        """The schedule of pieces of `size` rows.

        A stage's buffers have one shape, which it finds out from its first piece: batches of another
        size, such as an epoch's last, need their own.
        """
        if (size, training) not in self._schedules:
            device = self._parts.world.device
            stages = [
                Stage(Blocks(blocks, self._precision), index, self._stage_count, device, group=self._row)
                for index, blocks in self._stages
            ]
            for stage in stages:
                stage.traffic = self._traffic
            settings: dict[str, Any] = {"loss_fn": self._loss if training else None, "scale_grads": False}
            pieces = self._options.micro_batches
            if self._options.schedule == "interleaved":
                schedule: Any = ScheduleInterleaved1F1B(list(stages), pieces, **settings)
            else:
                kind = ScheduleGPipe if self._options.schedule == "gpipe" else Schedule1F1B
                schedule = kind(stages[0], pieces, **settings)
            self._schedules[size, training] = schedule
        return self._schedules[size, training]

    def _loss(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """The share of a piece in the global batch's mean loss.

        Args:
            outputs: of the piece (rows, …), padding included.
            rows: their numbers in the worker's batch (rows,).
        """
        batch, weight = self._micro.batch, self._micro.weight
        whole, start = rows_of(batch), int(rows[0])
        real = max(0, min(len(rows), whole - start))
        if not real:
            return (outputs * 0).sum()  # their sum may be more than fp16 holds
        piece = {name: field[start : start + real] for name, field in batch.items()}
        workload = self._parts.workload
        with self._traffic.computing(), self._precision.autocast():
            loss = workload.objective(finish(workload, outputs[:real], piece), piece)
            part = weight * real / whole
            # By its first row, since torch also asks for the loss of the piece that shows the shapes.
            self._found[start] = {
                name: mean.detach() * part for name, mean in {"loss": loss.value, **loss.metrics}.items()
            }
            # Gradients are averaged over the rows of workers.
            return self._scaler.scaled(loss.value * (part * self._replicas.size()))

    def _on_all(self, kind: str, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the last stage found; on the row's other workers, zeros of the same names and shapes."""
        if kind not in self._layouts:
            layout: list[Any] = [{name: value.shape for name, value in found.items()}]
            dist.broadcast_object_list(layout, group=self._row, group_src=self._row.size() - 1)
            self._layouts[kind] = layout[0]
        if self._last:
            return found
        device = self._parts.world.device
        zeros = {name: torch.zeros(shape, device=device) for name, shape in self._layouts[kind].items()}
        return nothing_of(zeros, self._parts.workload.listed)

    def reduce(self, trained: TrainedPhase) -> None:
        if self._replicas.size() > 1:
            average(trained.parameters, self._replicas, self._replicas.size(), self._traffic)

    def clip(self, trained: TrainedPhase, norm: float | None, value: float | None) -> Tensor:
        own = regularize.clip(trained.parameters, None, None)
        squares = own.double().square()
        dist.all_reduce(squares, group=self._row)
        total = squares.sqrt().to(own.dtype)
        regularize.scale(trained.parameters, total, norm, value)
        return total

    def agree(self) -> None:
        """There are no running statistics (`_check`), and workers hold buffers of their own."""

    def evaluate_step(self, micro: MicroBatch, carry: Carry) -> tuple[dict[str, Tensor], Carry]:
        workload, regularizers = self._parts.workload, self._parts.regularizers
        self.prepare_to_measure()
        sums: dict[str, Tensor] = {}
        with torch.no_grad():
            if regularizers.mc_samples:
                with regularizers.stochastic(self._model):
                    runs = [self._flow(micro.batch, training=False) for _ in range(regularizers.mc_samples)]
            else:
                runs = [self._flow(micro.batch, training=False)]
            if self._last:
                with self._precision.autocast():
                    finished = [finish(workload, run, micro.batch) for run in runs if run is not None]
                    outputs = workload.average(finished) if regularizers.mc_samples else finished[0]
                    sums = workload.sums(outputs, micro.batch)
                rows = float(rows_of(micro.batch))
                sums["rows"] = torch.tensor(rows, device=self._parts.world.device)
                if not micro.real:
                    sums = nothing_of(sums, workload.listed)
        return self._on_all("evaluate", sums), None

    def communication(self) -> Mapping[str, float]:
        # On a GPU, kernels run on after their call: seconds would say nothing.
        return self._traffic.means(timed=self._parts.world.device.type == "cpu")

    def state_out(self) -> State:
        own = super().state_out()
        if self._replicas.rank():
            return own
        parts: list[Any] = [None] * self._row.size() if self._row.rank() == 0 else []
        held = {"model": own.model, "optimizers": own.optimizers}
        sent = replace(own, **tree_map_only(Tensor, Tensor.cpu, held))  # it travels by pickle
        dist.gather_object(sent, parts or None, group=self._row, group_dst=0)
        return whole.joined(parts, self._names) if parts else own

    def state_in(self, state: State) -> None:
        super().state_in(whole.part_of(state, self._model.state_dict().keys()))


def _mark(buffer: Tensor) -> tuple[int, int]:
    """Changes when a buffer is written to, or another tensor takes its place."""
    return id(buffer), buffer._version


def _check(workload: Workload, model: nn.Module) -> None:
    """Refuses what cannot be cut, or would not compute the same when it is."""
    name = type(workload).__name__
    if type(workload).phases is not Workload.phases or workload.order == "streams":
        raise UsageError(
            f"strategy: {name} has phases of its own or carries state, which a pipeline cannot: "
            "use another strategy"
        )
    if type(model) is not nn.Sequential:
        raise UsageError(
            f"strategy: a pipeline cuts an nn.Sequential, and {name}.build gives a {type(model).__name__}: "
            "build the model as an nn.Sequential of its blocks, or use another strategy"
        )
    for path, module in model.named_modules():
        batch_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if batch_norm or getattr(module, "running_mean", None) is not None:
            what = "is a batch norm" if batch_norm else "keeps running statistics"
            raise UsageError(
                f"strategy: {path} {what}, and would see a few rows at a time in a pipeline: use group norm "
                "(resnet: model.norm: group) or an instance norm without statistics, or another strategy"
            )


def _check_shares(model: nn.Module, shares: Sequence[Sequence[str]]) -> None:
    """Refuses workers without parameters, and weights that two workers would have to keep equal.

    Args:
        shares: names of each worker's blocks.
    """
    holders: dict[nn.Parameter, tuple[int, str]] = {}
    for worker, share in enumerate(shares):
        held = [
            item for item in model.named_parameters(remove_duplicate=False) if item[0].split(".")[0] in share
        ]
        if not any(parameter.requires_grad for _, parameter in held):
            raise UsageError(
                f"strategy.split: worker {worker} would train nothing: {', '.join(share)} have no "
                "parameters; use fewer stages or another split"
            )
        for name, parameter in held:
            other, first = holders.setdefault(parameter, (worker, name))
            if other != worker:
                raise UsageError(
                    f"strategy.split: {first} and {name} are one weight, but workers {other} and {worker} "
                    "would each train their own: cut so that both are on one stage"
                )
