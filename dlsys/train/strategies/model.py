"""What no strategy can train, found before the first step."""

from __future__ import annotations

from torch import nn
from torch.nn.parameter import is_lazy

from dlsys.errors import UsageError
from dlsys.train.strategies.base import Parts


def check_model(model: nn.Module, parts: Parts) -> None:
    """Refuses a model by the name of the parameter that stands in the way.

    Raises:
        UsageError: a parameter has no shape yet, or gradients that are not dense, or numbers that the job's
            precision has no place for.
    """
    job = parts.job
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise UsageError(
                f"{job.workload}: {name} is lazy, and has no shape before its first batch: give the layer "
                "its size, or run a row through the model in build()"
            )
    if parts.precision.floats is not None:
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.is_complex():
                raise UsageError(
                    f"precision: {name} is complex, and checkpoints hold complex numbers of 2 × 32 bits "
                    f"alone: say fp32 in place of {job.precision}"
                )
    for path, module in model.named_modules():
        if getattr(module, "sparse", False) and isinstance(module, nn.Embedding | nn.EmbeddingBag):
            raise UsageError(
                f"{job.workload}: {path}.weight has sparse gradients, which are neither clipped nor averaged "
                "here: build it with sparse=False"
            )
