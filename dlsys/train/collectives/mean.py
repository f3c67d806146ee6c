"""Sums and means over a group of workers, with a count of what they send."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dlsys.train.traffic import Traffic


def add_up(tensor: Tensor, group: dist.ProcessGroup, traffic: Traffic) -> None:
    """Replaces a tensor by its sum over a group."""
    if group.size() > 1:
        with traffic.sending(2 * (group.size() - 1) / group.size() * tensor.nbytes):
            dist.all_reduce(tensor, group=group)


@torch.no_grad()
def average(
    parameters: Sequence[nn.Parameter], group: dist.ProcessGroup, places: int, traffic: Traffic
) -> None:
    """Replaces each gradient by its sum over a group, divided by `places`.

    A worker without one adds zeros; where no worker has one, there is none afterwards. Gradients of one
    type travel at once, and behind them a flag for each.

    Args:
        parameters: the same on every worker; of a DTensor's gradient, what this worker holds is meant.
    """
    for dtype in sorted({parameter.dtype for parameter in parameters}, key=str):
        same = [parameter for parameter in parameters if parameter.dtype == dtype]
        used = [parameter.grad is not None for parameter in same]
        for parameter in same:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        parts = [local(parameter.grad) for parameter in same]
        flags = torch.tensor(used, dtype=dtype, device=parts[0].device)
        flat = torch.cat([*(part.flatten() for part in parts), flags])
        add_up(flat, group, traffic)
        *means, flags = torch.split(flat, [*(part.numel() for part in parts), len(same)])
        for parameter, part, mean, flag in zip(same, parts, means, flags.tolist(), strict=True):
            if flag:
                part.copy_(mean.view_as(part).div_(places))
            else:
                parameter.grad = None


def local(tensor: Any) -> Tensor:
    """What this worker holds of a tensor: asking for DTensor itself would import half a second of code."""
    own: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return own
