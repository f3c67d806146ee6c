"""A step that is solved: the workers' sums over rows are added up, and each solves for the same model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from dlsys.data.loader import StepBatch
from dlsys.errors import NonFiniteError
from dlsys.train.strategies.base import StepResult
from dlsys.train.world import World
from dlsys.zoo.solved import Part, Solved
from dlsys.zoo.workload import nothing_of


@torch.no_grad()
def solve_step(
    workload: Solved,
    model: nn.Module,
    batch: StepBatch,
    step: int,
    *,
    world: World,
    add_up: Callable[[Tensor], None],
) -> StepResult:
    """All parts of a step.

    Args:
        batch: this worker's part of the global batch.
        step: its number, for messages.
        add_up: replaces a tensor by its sum over all workers, in place.

    Raises:
        NonFiniteError: a sum is not finite; nothing of its part was changed.
    """
    sums: dict[str, Tensor] = {}
    figures: dict[str, float] = {}
    parts = workload.parts()
    for part in parts:
        own = _own(workload, part, model, batch)
        if "loss" in own:
            name = "loss" if len(parts) == 1 else f"loss/{part.name}"
            sums[name] = own["loss"].detach() / batch.rows
        whole = _whole(own, workload, world, add_up)
        for name, value in whole.items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise NonFiniteError(f"step {step}: the sum over rows of {name} is not finite")
        figures |= {key: float(value) for key, value in part.solve(model, whole).items()}
    # There is no gradient, and no norm of one.
    return StepResult(sums, torch.tensor(math.nan), figures=figures)


def _own(workload: Solved, part: Part, model: nn.Module, batch: StepBatch) -> dict[str, Tensor]:
    """This worker's statistics; of a worker without a row, nothing of each."""
    found: dict[str, Tensor] = {}
    counts = [micro for micro in batch.micros if micro.real]
    for micro in counts or batch.micros[:1]:
        sums = part.statistics(model, micro.batch)
        if not micro.real:
            sums = nothing_of(sums, workload.gathered)
        for name, value in sums.items():
            if name not in found:
                # Not in place on the first one's memory: it may be the batch's or the model's own.
                found[name] = value.clone()
            elif name in workload.gathered:
                found[name] = torch.cat([found[name], value])
            else:
                found[name] += value
    return found


def _whole(
    own: Mapping[str, Tensor], workload: Solved, world: World, add_up: Callable[[Tensor], None]
) -> dict[str, Tensor]:
    """The statistics of the whole global batch. What is of one type travels at once."""
    added = {name: value for name, value in own.items() if name not in workload.gathered}
    whole: dict[str, Tensor] = {}
    for dtype in sorted({value.dtype for value in added.values()}, key=str):
        names = sorted(name for name, value in added.items() if value.dtype == dtype)
        flat = torch.cat([added[name].flatten() for name in names])
        add_up(flat)
        parts = torch.split(flat, [added[name].numel() for name in names])
        whole |= {name: part.view(added[name].shape) for name, part in zip(names, parts, strict=True)}
    return whole | {name: world.join(own[name]) for name in sorted(workload.gathered & own.keys())}
