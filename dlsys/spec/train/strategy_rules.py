"""Rules about `strategy:`: what a strategy asks of the workers, of the workload and of other options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from dlsys.spec.card import Card
from dlsys.spec.rules import Found
from dlsys.spec.section import Section
from dlsys.spec.train.job import TrainJob
from dlsys.spec.train.strategy import (
    DDP,
    FSDP,
    PS,
    LocalSGD,
    MoE,
    Pipeline,
    Ring,
    Single,
    Tensor,
    Zero,
    approximates,
    stage_blocks,
    usual,
)
from dlsys.spec.yaml import Path

# What one worker may say too: zero for its offload, the others because they then do as single does.
_ALONE = ("single", "ddp", "ps", "zero")


def suits_workers(job: TrainJob) -> Found:
    """The number of workers, and how a strategy divides them."""
    strategy, workers = job.strategy, job.resources.workers
    if strategy is None:
        return
    if isinstance(strategy, Single) and workers > 1:
        yield (
            ("strategy", "name"),
            f"single is one worker's, but resources.workers is {workers}: say ddp, or workers: 1",
        )
    if workers == 1 and strategy.name not in _ALONE:
        yield (
            ("strategy", "name"),
            f"{strategy.name} needs 2 workers or more, but resources.workers is 1: say single, or workers: 2",
        )
        return
    if isinstance(strategy, Pipeline):
        yield from _told(lambda: strategy.count(workers))
    if isinstance(strategy, Tensor):
        size = strategy.size or workers
        yield from _divides(("strategy", "size"), size, workers, "parts of a model")
        if strategy.data == "shard" and size == workers:
            smaller = ", ".join(str(n) for n in range(2, workers) if workers % n == 0)
            mend = f"use size {smaller}" if smaller else f"use {2 * size} workers"
            yield (
                ("strategy", "data"),
                f"shard needs several groups, but all {workers} workers share one model: "
                f"{mend}, or strategy fsdp, or leave data out",
            )
    if isinstance(strategy, MoE) and strategy.size is not None:
        yield from _divides(("strategy", "size"), strategy.size, workers, "parts of a set of experts")
    if isinstance(strategy, FSDP):
        yield from _divides(("strategy", "replicas"), strategy.replicas, workers, "replicas")
        if strategy.replicas == workers > 1:
            yield (
                ("strategy", "replicas"),
                f"{workers} replicas of {workers} workers shard nothing: say ddp, or fewer replicas",
            )
        if strategy.offload and not job.resources.gpus:
            yield ("strategy", "offload"), "there is nothing to offload without GPUs: leave it out"


def _told(check: Callable[[], object]) -> Found:
    """What a check raises: it begins with the option's name."""
    try:
        check()
    except ValueError as error:
        option, _, text = str(error).partition(": ")
        yield ("strategy", option), text


def _divides(path: Path, parts: int, workers: int, what: str) -> Found:
    if workers % parts:
        near = ", ".join(str(n) for n in range(1, workers + 1) if workers % n == 0)
        yield path, f"{workers} workers cannot be divided into {parts} {what}: use one of {near}"


def suits_workload(job: TrainJob, card: Card | None) -> Found:
    """What the card allows, and the blocks that a pipeline cuts between."""
    strategy = job.strategy
    if card is None or strategy is None:
        return
    if strategy.name not in card.strategies:
        yield (
            ("strategy", "name"),
            f"{job.workload} does not run under {strategy.name}; it does under: {', '.join(card.strategies)}",
        )
    elif isinstance(strategy, Tensor) and strategy.data == "shard" and "fsdp" not in card.strategies:
        yield (
            ("strategy", "data"),
            f"shard works as fsdp does, under which {job.workload} does not run: leave data out",
        )
    elif isinstance(strategy, Pipeline):
        with suppress(ValueError):  # `suits_workers` tells it
            stages = strategy.count(job.resources.workers)
            yield from _told(lambda: stage_blocks(card.blocks, stages, strategy.split))


# What is served where each worker holds the weights, or parts of them, and an update changes all at once.
_HELD = ("single", "ddp", "ring", "fsdp", "tensor", "pipeline", "moe")
_SERVED: Sequence[tuple[Path, Callable[[TrainJob], object], Sequence[str]]] = (
    (("compile",), lambda job: job.compile, ("single", "ddp")),
    (
        ("activation_checkpointing",),
        lambda job: job.activation_checkpointing,
        ("single", "ddp", "ring", "fsdp"),
    ),
    (("average",), lambda job: job.average, _HELD),
    (("optimizer", "groups"), lambda job: job.optimizer.groups, _HELD),
)


def serves(job: TrainJob) -> Found:
    """What a job asks for besides, and not every strategy has."""
    strategy = job.strategy or usual(job.resources.workers)
    for path, asked, names in _SERVED:
        if asked(job) and strategy.name not in names:
            having = f"{', '.join(names[:-1])} and {names[-1]}"
            yield path, f"is for {having}, got strategy {strategy.name}: use one of these, or leave it out"
    if job.average and isinstance(strategy, DDP) and strategy.local_sgd:
        yield (
            ("average",),
            "under local_sgd workers train apart, and each would average its own: use one of them",
        )


def cuts_evenly(job: TrainJob, card: Card | None) -> Found:
    """Tensor parallelism gives every worker an equal part of a layer, expert parallelism as many experts."""
    strategy = job.strategy
    if isinstance(strategy, Tensor) and card is not None and "tensor" in card.strategies:
        size = strategy.size or job.resources.workers
        if wrong := card.uneven_cuts(card.options_of(job.model), size):
            yield ("strategy", "size"), wrong
    if isinstance(strategy, MoE) and card is not None and card.experts is not None:
        experts = card.experts(card.options_of(job.model))
        size = strategy.size or job.resources.workers
        if experts % size:
            near = ", ".join(str(n) for n in range(2, experts + 1) if experts % n == 0)
            yield (
                ("strategy", "size"),
                f"{experts} experts cannot be dealt out to {size} workers equally: use one of {near}",
            )


def options_fit(job: TrainJob) -> Found:
    """Options that mean nothing, or contradict each other or the rest of the job."""
    strategy = job.strategy
    if strategy is None:
        return
    match strategy:
        case DDP():
            yield from _only_with(strategy, "powersgd_rank", strategy.hook == "powersgd", "hook: powersgd")
            if strategy.local_sgd and strategy.hook != "none":
                yield (
                    ("strategy", "hook"),
                    f"{strategy.hook} compresses gradients, but under local_sgd none travel: use one of both",
                )
            if strategy.static_graph and job.gradient.accumulate > 1:
                yield (
                    ("strategy", "static_graph"),
                    "DDP averages every backward pass of a static graph, and with gradient.accumulate all "
                    "but the last are to be left alone: say static_graph: false, or accumulate: 1",
                )
        case Zero():
            if job.precision == "fp64":
                yield (
                    ("precision",),
                    "zero cannot train in fp64: DeepSpeed reduces and updates in fp32 at most. Say fp32, or "
                    "strategy fsdp, which cuts the same",
                )
            if strategy.offload and job.optimizer.name not in ("adam", "adamw"):
                yield (
                    ("strategy", "offload"),
                    f"DeepSpeed's optimizer on the CPU is Adam, this job's is {job.optimizer.name}: "
                    "say adam or adamw, or leave offload out",
                )
    if job.precision == "fp16":
        yield from _scales_one_loss(strategy)
    if reason := approximates(strategy):
        for name, bound in job.expect.items():
            if bound.relation == "==":
                yield (
                    ("expect", name),
                    f"cannot be met exactly under {strategy.name}: {reason}; expect >= or <=",
                )


_APART = (
    "fp16 has one loss scale, but under {} workers train apart, and each would find its own: say bf16, or {}"
)
_KEPT = "in fp16 gradients overflow now and then, and {} would keep that for all later steps: say bf16, or {}"


def _scales_one_loss(strategy: Section) -> Found:
    """fp16 has one loss scale, which all workers lower when a gradient overflows, and go on."""
    match strategy:
        case Zero():
            wrong = (
                "zero cannot train in fp16: whether DeepSpeed has it depends on the machine, and its loss "
                "scale is its own. Say bf16, or strategy fsdp, which cuts the same"
            )
        case DDP(local_sgd=LocalSGD()):
            wrong = _APART.format("local_sgd", "leave local_sgd out")
        case PS(in_step=False, mode=mode):
            wrong = _APART.format(f"mode: {mode}", "mode: sync")
        case PS(push="updates"):
            wrong = _APART.format("push: updates", "push: gradients")
        case DDP(hook="powersgd"):
            wrong = _KEPT.format("hook: powersgd", "hook: fp16")
        case Ring(wire=wire, error_feedback=True) if wire != "same":
            wrong = _KEPT.format("error_feedback", "error_feedback: false")
        case _:
            return
    yield ("precision",), wrong


def _only_with(strategy: Section, option: str, holds: bool, other: str) -> Found:
    # A resolved job names every option: what is at its default was not asked for.
    if not holds and getattr(strategy, option) != type(strategy).model_fields[option].default:
        yield ("strategy", option), f"means something only with {other}"


def data_shares(job: TrainJob) -> int:
    """Into how many shares the workers cut every batch: those that hold one model have the same."""
    workers = job.resources.workers
    match job.strategy:
        case Pipeline(stages=parts) | Tensor(size=parts):
            return max(1, workers // (parts or workers))
    return workers
