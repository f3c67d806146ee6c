"""Rules about workloads that learn without gradients: what a job says of gradients has no use there."""

from __future__ import annotations

from dlsys.spec.card import SOLVING
from dlsys.spec.rules import Found
from dlsys.spec.train.job import TrainJob
from dlsys.spec.train.regularizer import DataAugmentation
from dlsys.spec.train.strategy import DDP, Ring

# Sections that are left out, or have one setting that has a use.
_UNUSED = ("optimizer", "schedule", "average", "freeze", "loss", "activation_checkpointing")
SECTIONS = (*_UNUSED, "gradient", "regularize", "precision", "strategy")
_WHY = "{} learns from sums over rows, without gradients: leave it out"


def leaves_out(job: TrainJob) -> Found:
    """What a job says that only gradients have a use for.

    A resolved job names all: what is at its default was not asked for.
    """
    why = _WHY.format(job.workload)
    for name in _UNUSED:
        if getattr(job, name) != TrainJob.model_fields[name].get_default(call_default_factory=True):
            yield (name,), why
    for name in ("clip_norm", "clip_value"):
        if getattr(job.gradient, name) is not None:
            yield ("gradient", name), why
    for place, regularizer in enumerate(job.regularize):
        if not isinstance(regularizer, DataAugmentation):
            yield ("regularize", place), why
        elif regularizer.mixup or regularizer.cutmix:
            yield ("regularize", place), "mixup and cutmix share out classes, which counts do not take"
    if job.precision in ("bf16", "fp16"):
        yield (
            ("precision",),
            f"sums over all rows need more digits than {job.precision} has: say fp32 or fp64",
        )
    match job.strategy:
        case DDP(hook=hook, local_sgd=local):
            if hook != "none":
                yield ("strategy", "hook"), why
            if local:
                yield ("strategy", "local_sgd"), why
        case Ring(wire=wire):
            if wire != "same":
                yield ("strategy", "wire"), why
        case other if other and other.name not in SOLVING and job.card is None:  # or its card tells
            yield (
                ("strategy", "name"),
                f"{job.workload} is solved for as a whole, which it is under {', '.join(SOLVING)}",
            )
