"""What is done to a model before it trains: what no strategy can train is found, and it may be compiled."""

from __future__ import annotations

import os
import shutil

import torch
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


def compile_in_place(model: nn.Module) -> None:
    """Compiles what the model's call does; its parameters keep their names, as a wrapper's would not.

    Kernels are compiled in this process: a pool of processes for it would outlive the run.
    """
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # read when inductor is imported
    if "CXX" not in os.environ and shutil.which("g++") is None and not torch.cuda.is_available():
        raise UsageError(
            "compile: torch.compile needs a C++ compiler on CPUs, and there is no g++ on PATH: install it, "
            "or leave compile out"
        )
    model.compile()
