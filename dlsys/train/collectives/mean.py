"""Sums and means over a group of workers, with a count of what they send."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from dlsys.train.traffic import Traffic


def add_up(tensor: Tensor, group: dist.ProcessGroup, traffic: Traffic) -> None:
    """Replaces a tensor by its sum over a group."""
    if group.size() > 1:
        with traffic.sending(2 * (group.size() - 1) / group.size() * tensor.nbytes):
            dist.all_reduce(tensor, group=group)


def average(tensors: list[Tensor], group: dist.ProcessGroup, places: int, traffic: Traffic) -> None:
    """Replaces each tensor by its sum over a group, divided by `places`; all travel at once."""
    if not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    add_up(flat, group, traffic)
    flat.div_(places)
    for tensor, mean in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))
