"""One stage of a pipeline, and what stands for the model where its stages are elsewhere."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage

from dlsys.errors import UsageError
from dlsys.train.precision import Precision
from dlsys.train.traffic import Traffic
from dlsys.zoo.workload import Batch, Workload, rows_of


class Stage(PipelineStage):
    """torch's stage, with a count of what it does."""

    traffic: Traffic

    def forward_one_chunk(self, *arguments: Any, **named: Any) -> Any:
        with self.traffic.computing():
            return super().forward_one_chunk(*arguments, **named)

    def backward_one_chunk(self, *arguments: Any, **named: Any) -> Any:
        with self.traffic.computing():
            return super().backward_one_chunk(*arguments, **named)

    def get_fwd_send_ops(self, fwd_chunk_id: int) -> list[dist.P2POp]:
        return self._counted(super().get_fwd_send_ops(fwd_chunk_id))

    def get_bwd_send_ops(self, bwd_chunk_id: int) -> list[dist.P2POp]:
        return self._counted(super().get_bwd_send_ops(bwd_chunk_id))

    def _counted(self, sends: list[dist.P2POp]) -> list[dist.P2POp]:
        self.traffic.add(sent=sum(send.tensor.nbytes for send in sends))
        return sends


class Blocks(nn.Module):
    """A stage's blocks, in the job's precision; what they give out can be sent."""

    def __init__(self, blocks: nn.Sequential, precision: Precision) -> None:
        super().__init__()
        self.blocks = blocks
        self.precision = precision

    def forward(self, inputs: Tensor) -> Tensor:
        with self.precision.autocast():
            outputs: Tensor = self.blocks(_Sendable.apply(inputs))  # type: ignore[no-untyped-call]
        return outputs.contiguous()


class _Sendable(torch.autograd.Function):
    """Nothing, but that gradients are in one piece: torch makes the buffers that receive them as they are."""

    @staticmethod
    def forward(_: Any, inputs: Tensor) -> Tensor:  # type: ignore[override]
        return inputs.view_as(inputs)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient.contiguous()


class _Called(BaseException):
    """A workload's `forward` called the model."""


class _StandIn(nn.Module):
    """Stands for a model whose blocks are elsewhere, in a workload's `forward`.

    Answers with the outputs that they gave; without, ends `forward` and tells what it was called with.
    """

    def __init__(self, outputs: Tensor | None = None) -> None:
        super().__init__()
        self._outputs = outputs

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        if self._outputs is None:
            raise _Called(*inputs, *named.values())
        return self._outputs


def model_input(workload: Workload, batch: Batch) -> Tensor:
    """What a workload feeds its model with.

    Raises:
        UsageError: it is not one tensor of the batch's rows.
    """
    try:
        workload.forward(_StandIn(), batch, None)
    except _Called as call:
        match call.args:
            case (Tensor(shape=shape) as inputs,) if shape[:1] == (rows_of(batch),):
                return inputs
    raise UsageError(
        "strategy: a pipeline takes one tensor, a row for each of the batch's, and "
        f"{type(workload).__name__}.forward calls its model with something else: use another strategy"
    )


def finish(workload: Workload, outputs: Tensor, batch: Batch) -> Any:
    """What a workload makes of its model's outputs."""
    return workload.forward(_StandIn(outputs), batch, None)[0]
