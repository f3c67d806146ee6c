"""A workload's facts, counted from its code: parameters, floating-point operations, bytes for backward.

The model is built and run on torch's meta device, where tensors have shapes and no numbers: a model of
any size is counted in a moment, in little memory. What looks at its numbers on the way (a gate that sends
tokens to experts, noise that is drawn) cannot run there, and is counted on a few real rows instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from dlsys.data import Dataset, load, rowwise
from dlsys.errors import DlsysError
from dlsys.plan.facts import Facts
from dlsys.spec.train.job import TrainJob
from dlsys.zoo.load import workload_of
from dlsys.zoo.solved import Solved
from dlsys.zoo.workload import Batch, Workload

# What a row costs is the difference between a batch of twice as many and this one.
_ROWS = 16


def measure(job: TrainJob, folder: Path) -> Facts:
    """The facts of a job's workload on a job's data.

    Args:
        job: names workload, options and source.
        folder: where its relative paths start.

    Raises:
        DlsysError: the data or the workload cannot be loaded, or the workload's own code fails.
    """
    splits = load(job.data, folder)
    workload = workload_of(job, splits.shape, splits.learnt)
    return count(workload, lambda rows: _first(splits.train, rows))


def count(workload: Workload, batch_of: Callable[[int], Batch]) -> Facts:
    """The facts of a workload.

    Args:
        workload: what is counted; its model is built, and lost.
        batch_of: from a number of rows to a batch on the CPU.

    Raises:
        Exception: whatever the workload's code raises on real rows.
    """
    small, large = batch_of(_ROWS), batch_of(2 * _ROWS)
    try:
        model, device = _build(workload), "meta"
        counts = [_count(workload, model, _on(batch, device)) for batch in (small, large)]
    except DlsysError:
        raise
    except Exception:  # of whatever kind: torch and models have many for "this has no numbers"
        model, device = workload.build(), "cpu"
        counts = [_count(workload, model, batch) for batch in (small, large)]
    if device == "meta" and any(isinstance(module, nn.RNNBase) for module in model.modules()):
        # On real devices these are one kernel each, which keeps what it needs in a form of its own.
        real = workload.build()
        held = [_count(workload, real, batch).activation_bytes for batch in (small, large)]
    else:
        held = [found.activation_bytes for found in counts]
    return Facts(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        flops=_a_row(counts[0].flops, counts[1].flops),
        step_flops=_a_row(counts[0].step_flops, counts[1].step_flops),
        activation_bytes=_a_row(*held),
    )


def _a_row(small: int, large: int) -> int:
    return round((large - small) / _ROWS)


def _build(workload: Workload) -> nn.Module:
    """The model on the meta device; built there, or if it looks at its numbers, moved there."""
    try:
        with torch.device("meta"):
            return workload.build().to("meta")
    except Exception:  # as in `count`
        return workload.build().to("meta")


def _on(batch: Batch, device: str) -> Batch:
    return {name: tensor.to(device) for name, tensor in batch.items()}


def _first(dataset: Dataset, rows: int) -> Batch:
    """The first rows of a dataset, over again where it has fewer."""
    batch = dataset.batch(np.arange(rows) % len(dataset))
    return {**batch, "key": rowwise.keys(0, 0, np.arange(rows))}


@dataclass(frozen=True)
class _Counts:
    flops: int
    step_flops: int
    activation_bytes: int


def _count(workload: Workload, model: nn.Module, batch: Batch) -> _Counts:
    """What a batch costs: forward alone, a whole step, and the most that a phase holds for backward.

    Of a step that is solved, what is done for each row: solving itself does not depend on their number.
    """
    model.train()
    with _counter() as forward, _FusedAttention(), torch.no_grad():
        workload.forward(model, batch, None)
    held = 0
    with _counter() as step, _FusedAttention():
        for phase in workload.phases():
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name.startswith(phase.parameters))
            kept = _Kept([*model.parameters(), *model.buffers(), *batch.values()])
            with torch.autograd.graph.saved_tensors_hooks(kept.keep, lambda tensor: tensor):
                loss, _ = phase.loss(model, batch, None)
            held = max(held, kept.bytes)
            loss.value.backward()  # type: ignore[no-untyped-call]
            model.zero_grad(set_to_none=True)
        if isinstance(workload, Solved):
            with torch.no_grad():
                for part in workload.parts():
                    part.statistics(model, batch)
    return _Counts(forward.get_total_flops(), step.get_total_flops(), held)


def _counter() -> FlopCounterMode:
    return FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: _of_convolutions_backward}
    )


def _of_convolutions_backward(
    grad_out: Sequence[int], inputs: Sequence[int], weight: Sequence[int], *more: Any, **_: Any
) -> int:
    """Operations of a convolution's backward, from shapes: each gradient takes as many as the convolution.

    torch's own formula counts the weight's gradient of a grouped convolution as if it had one group.
    """
    # After the bias, stride, padding and dilation whether it is transposed, and at last what is asked.
    transposed, asked = more[4], more[7]
    once = conv_flop_count(list(inputs), list(weight), list(grad_out), transposed)
    return once * sum(map(bool, asked[:2]))


class _FusedAttention(TorchFunctionMode):
    """Attention as devices compute it: in one kernel, which keeps no weights of pairs for backward.

    The meta device takes it apart, and would keep (heads, tokens, tokens) twice; on a CPU the kernel is
    taken, and torch counts no operations of it. These have both, on the meta device.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and args and args[0].is_meta:
            return self._fused(*args, **kwargs)
        return func(*args, **kwargs)

    def _fused(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **rest: Any,
    ) -> Tensor:
        if rest.get("enable_gqa"):
            shared = query.shape[-3] // key.shape[-3]
            key, value = (t.repeat_interleave(shared, -3) for t in (key, value))
        if attn_mask is not None and attn_mask.dtype is torch.bool:
            attn_mask = torch.empty_like(attn_mask, dtype=query.dtype)
        if attn_mask is not None:
            attn_mask = attn_mask.expand(*query.shape[:-1], key.shape[-2])
        attend = torch.ops.aten._scaled_dot_product_efficient_attention
        scale = rest.get("scale")
        result: Tensor = attend(query, key, value, attn_mask, True, dropout_p, is_causal, scale=scale)[0]
        return result


class _Kept:
    """Adds up what autograd saves for backward, each storage once.

    Args:
        own: tensors that are there in any case.
    """

    def __init__(self, own: list[Tensor]) -> None:
        # Alive, so that no other storage takes their place.
        self._seen = {self._identity(tensor): tensor for tensor in own}
        self.bytes = 0

    def keep(self, tensor: Tensor) -> Tensor:
        identity = self._identity(tensor)
        if identity not in self._seen:
            self._seen[identity] = tensor
            self.bytes += tensor.untyped_storage().nbytes()
        return tensor

    def _identity(self, tensor: Tensor) -> int:
        # On the meta device every address is 0.
        return int(tensor.untyped_storage()._cdata)
