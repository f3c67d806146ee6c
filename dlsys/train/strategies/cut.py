"""What strategies share that cut some of a model's parameters among workers, as DTensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from dlsys.train import regularize
from dlsys.train.collectives.mean import add_up, local
from dlsys.train.strategies.phase import TrainedPhase
from dlsys.train.strategies.single import SingleStrategy


class CutStrategy(SingleStrategy):
    """`parallelize` cuts parameters among the workers of `_group`; `_data` are those with the same parts."""

    _group: dist.ProcessGroup
    _data: dist.ProcessGroup

    def clip(self, trained: TrainedPhase, norm: float | None, value: float | None) -> Tensor:
        held = [p for p in trained.parameters if p.grad is not None]
        gradients = [p.grad for p in held if p.grad is not None]
        total = self._whole_square(gradients).sqrt()
        regularize.scale(held, total, norm, value, foreach=False)
        return total

    def _whole_square(self, gradients: list[Tensor]) -> Tensor:
        """The squared norm of the whole gradient, the same on every worker: a scalar."""
        square = self._square(local(g) for g in gradients if is_cut(g))
        add_up(square, self._group, self._traffic)
        return square + self._square(local(g) for g in gradients if not is_cut(g))

    def _square(self, tensors: Iterable[Tensor]) -> Tensor:
        """The squared norm of tensors that this worker holds, all together: a scalar."""
        norms = torch._foreach_norm(parts) if (parts := list(tensors)) else []
        zero = torch.zeros((), device=self._parts.world.device)
        return torch.stack([zero, *norms]).square().sum()

    def communication(self) -> Mapping[str, float]:
        """The mean bytes of a step since the last call; its seconds are not known."""
        return self._traffic.means(timed=False)


def is_cut(tensor: Tensor) -> bool:
    """Whether the workers of a group hold parts of a tensor; the mesh's axis `data` does not count."""
    if not isinstance(tensor, DTensor):
        return False
    axes = tensor.device_mesh.mesh_dim_names or ()
    return any(
        axis != "data" and place.is_shard() for axis, place in zip(axes, tensor.placements, strict=True)
    )
