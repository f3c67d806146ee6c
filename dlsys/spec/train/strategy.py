"""`strategy:` — how several workers train one model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from dlsys.registry import did_you_mean
from dlsys.spec.section import Bool, Count, NonNegativeInt, Section, Text, show


class Single(Section):
    """One worker, one device: what every other strategy is held against."""

    name: Literal["single"]


class LocalSGD(Section):
    """Workers train apart, and average their parameters now and then (Stich 2018, arXiv:1805.09767)."""

    every: Count
    """Updates between two averages."""


class DDP(Section):
    """Each worker holds the whole model; gradients are averaged by all-reduce (torch DDP)."""

    name: Literal["ddp"]
    bucket_mb: Count = 25
    """MiB of gradients that travel together while backward goes on."""
    find_unused: Bool = False
    """Serves parameters that only some steps or workers use, for about a millisecond a step. Without, those
    that the first step leaves out are served, and a later change is refused by the parameter's name."""
    static_graph: Bool = False
    """Promise that every step uses the same parameters: lets DDP skip some work."""
    hook: Literal["none", "fp16", "powersgd"] = "none"
    """What travels for a bucket: itself, itself in 16 bits, or its low-rank factors (PowerSGD)."""
    powersgd_rank: Count = 1
    """Rank of PowerSGD's factors (Vogels et al. 2019, arXiv:1905.13727)."""
    local_sgd: LocalSGD | None = None
    """Averages parameters now and then in place of gradients at each step."""


class Ring(Section):
    """Each worker holds the whole model; gradients go round our own ring all-reduce."""

    name: Literal["ring"]
    bucket_mb: Count = 25
    """MiB of gradients that travel together while backward goes on."""
    wire: Literal["same", "bf16", "fp16"] = "same"
    """The type in which gradients travel; `same` is their own."""
    error_feedback: Bool = True
    """What a 16-bit wire rounds off enters the next step's gradient (Seide et al. 2014)."""


class PS(Section):
    """Parameters and optimizer live on servers; workers push gradients and pull parameters."""

    name: Literal["ps"]
    servers: Count = 1
    """Server processes; they need no CPUs of their own. Tensors are shared out by bytes."""
    mode: Literal["sync", "async", "ssp"] = "sync"
    """`sync` equals one worker; `async` waits for nobody (Recht et al. 2011, arXiv:1106.5730); `ssp`
    lets the fastest worker be `staleness` steps ahead of the slowest (Ho et al. 2013)."""
    staleness: NonNegativeInt = 0
    """The bound of `ssp`; 0 computes the same as `sync`."""
    push: Literal["gradients", "updates"] = "gradients"
    """What travels to the servers: gradients, or what `local_steps` own steps changed."""
    local_steps: Count = 1
    """Own steps between two pushes of `updates`."""
    split_mb: Count = 4
    """Tensors above this many MiB are cut into shards that go to different servers."""
    snapshot: Count = 100
    """Updates between two snapshots of a server, from which a killed one comes back under `async` and
    `ssp`; under `sync` the run goes back to its checkpoint, and there are none."""

    @property
    def in_step(self) -> bool:
        """Whether all workers make each update together."""
        return self.mode == "sync" or (self.mode == "ssp" and self.staleness == 0)

    @field_validator("local_steps")
    @classmethod
    def _steps_are_for_updates(cls, steps: int, info: ValidationInfo) -> int:
        if steps > 1 and info.data.get("push") == "gradients":
            raise ValueError(f"{steps} own steps need push: updates; gradients travel at every step")
        return steps

    @field_validator("staleness")
    @classmethod
    def _bound_is_for_ssp(cls, staleness: int, info: ValidationInfo) -> int:
        mode = info.data.get("mode")
        if staleness and mode in ("sync", "async"):
            raise ValueError(f"a bound of {staleness} needs mode: ssp, not {mode}")
        return staleness


class FSDP(Section):
    """Parameters, gradients and optimizer are cut among the workers (torch FSDP2, `fully_shard`)."""

    name: Literal["fsdp"]
    reshard: Bool = True
    """Frees gathered parameters after forward (ZeRO-3); without, they stay until backward (ZeRO-2)."""
    replicas: Count = 1
    """Groups that each hold a whole model (hybrid sharding); workers are divided among them."""
    offload: Bool = False
    """Keeps parameters, gradients and optimizer in the CPU's memory; needs GPUs to be of use."""


# DeepSpeed's keys for what a job file says in a place of its own.
_SAID_ELSEWHERE = {
    "train_batch_size": "batch_size",
    "train_micro_batch_size_per_gpu": "batch_size",
    "gradient_accumulation_steps": "gradient.accumulate",
    "managed_gradient_accumulation": "gradient.accumulate",
    "gradient_allreduce_op": "batch_size",
    "gradient_clipping": "gradient.clip_norm",
    "optimizer": "optimizer",
    "zero_allow_untested_optimizer": "optimizer",
    "scheduler": "schedule",
    "fp16": "precision",
    "bf16": "precision",
    "bfloat16": "precision",
    "amp": "precision",
    "torch_autocast": "precision",
    "data_types": "precision",
    "tensor_parallel": "strategy.name",
    "sequence_parallel_size": "strategy.name",
    "zero_optimization.stage": "strategy.stage",
    "zero_optimization.offload_optimizer": "strategy.offload",
}


class Zero(Section):
    """DeepSpeed's engine: ZeRO stages 0 to 3 (Rajbhandari et al. 2019, arXiv:1910.02054)."""

    name: Literal["zero"]
    stage: Literal[0, 1, 2, 3] = 2
    """Cut among the workers: 0 nothing, 1 the optimizer's state, 2 gradients too, 3 parameters too."""
    offload: Bool = False
    """Keeps the optimizer in the CPU's memory; its compiled Adam needs g++ and ninja."""
    deepspeed: dict[Text, Any] = Field(default_factory=dict)
    """DeepSpeed's own configuration besides; what dlsys decides (batch sizes, optimizer, precision,
    clipping, stage) may not be in it."""

    @field_validator("deepspeed")
    @classmethod
    def _leaves_dlsys_its_own(cls, value: dict[str, Any]) -> dict[str, Any]:
        nested = value.get("zero_optimization", {})
        if not isinstance(nested, dict):
            raise ValueError(f"zero_optimization must be a mapping, got {show(nested)}")
        taken = [*value, *(f"zero_optimization.{key}" for key in nested)]
        problems = [f"{key}: say it in {_SAID_ELSEWHERE[key]}" for key in taken if key in _SAID_ELSEWHERE]
        if problems:
            raise ValueError(f"dlsys sets these keys itself: {'; '.join(problems)}")
        if nested.get("round_robin_gradients"):
            raise ValueError(
                "zero_optimization.round_robin_gradients: DeepSpeed then loses track of where a parameter "
                "lies, and checkpoints would be wrong: leave it out"
            )
        return value

    @field_validator("offload")
    @classmethod
    def _offloads_what_is_cut(cls, value: bool, others: ValidationInfo) -> bool:
        if value and others.data.get("stage") == 0:
            raise ValueError("needs stage 1, 2 or 3, but stage is 0")
        return value


class Pipeline(Section):
    """The model's blocks are dealt out to stages; micro-batches flow through them."""

    name: Literal["pipeline"]
    stages: Count | None = None
    """Workers in a row; all of them unless told. Workers are divided among several such rows."""
    split: tuple[Text, ...] = ()
    """Names of the blocks that begin a new stage; by default parameters are shared out evenly."""
    schedule: Literal["gpipe", "1f1b", "interleaved"] = "1f1b"
    """GPipe (arXiv:1811.06965), one-forward-one-backward (arXiv:1806.03377), or the latter with two
    stages a worker (arXiv:2104.04473)."""
    micro_batches: Count = 4
    """Pieces of a worker's batch in flight; the bubble is (stages − 1) / (micro_batches + stages − 1)."""

    def deal(
        self, blocks: Sequence[str], workers: int, sizes: Sequence[int] | None = None
    ) -> tuple[tuple[str, ...], ...]:
        """The blocks of each stage, in order; stage i belongs to worker i % `stages` of its row.

        Args:
            blocks: names of the model's blocks, in order.
            workers: of the whole run.
            sizes: what is shared out evenly where no `split` is given; blocks count alike unless told.

        Raises:
            ValueError: the workers, micro-batches or blocks do not fit; the message begins with the
                option's name, and says how.
        """
        return stage_blocks(blocks, self.count(workers), self.split, sizes)

    def count(self, workers: int) -> int:
        """The stages of the whole model.

        Raises:
            ValueError: the workers or micro-batches do not fit, as in `deal`.
        """
        row, pieces = self.stages or workers, self.micro_batches
        if row < 2:
            raise ValueError(f"stages: a pipeline has 2 or more, got {row}: add workers, or say single")
        if workers % row:
            raise ValueError(
                f"stages: {workers} workers cannot be divided into rows of {row}: use a multiple of {row}"
            )
        if self.schedule == "1f1b" and pieces < row:
            raise ValueError(
                f"micro_batches: 1f1b needs one for each of the {row} stages, got {pieces}: "
                f"use {row} or more, or gpipe"
            )
        rounds = max(1, pieces // row)
        if self.schedule == "interleaved" and pieces % rounds:
            raise ValueError(
                f"micro_batches: interleaved cannot deal {pieces} out in {rounds} equal rounds: "
                f"use {rounds * row}"
            )
        return 2 * row if self.schedule == "interleaved" else row


def stage_blocks(
    blocks: Sequence[str], stages: int, split: Sequence[str] = (), sizes: Sequence[int] | None = None
) -> tuple[tuple[str, ...], ...]:
    """Deals blocks out to stages in order; each stage gets at least one.

    Args:
        blocks: their names, in order.
        stages: of the whole model.
        split: the blocks that begin a new stage; without, the stages' sizes get the smallest
            variance that any cuts give (as in GPipe, arXiv:1811.06965, section 2.2).
        sizes: of the blocks; all alike unless told.

    Raises:
        ValueError: more stages than blocks, or a split that does not fit.
    """
    known = ", ".join(blocks)
    if stages > len(blocks):
        raise ValueError(
            f"stages: {stages} stages need as many blocks, the model has {len(blocks)} ({known}): "
            "use fewer stages"
        )
    for name in split:
        if name not in blocks:
            raise ValueError(f"split: no block {name!r}.{did_you_mean(name, blocks)} Known: {known}")
    starts = [0, *map(blocks.index, split)] if split else _even_starts(sizes or [1] * len(blocks), stages)
    if any(first >= second for first, second in pairwise(starts)):
        raise ValueError(
            f"split: must name later and later blocks, not the first, got {', '.join(split)}; "
            f"their order is {known}"
        )
    if len(starts) != stages:
        raise ValueError(f"split: {stages} stages are {stages - 1} cuts, got {len(split)}")
    return tuple(tuple(blocks[start:end]) for start, end in pairwise([*starts, len(blocks)]))


def _even_starts(sizes: Sequence[int], stages: int) -> list[int]:
    """The first block of each stage, with the smallest sum of the stages' squared sizes."""

    @cache
    def best(start: int, left: int) -> tuple[int, list[int]]:
        if left == 1:
            return sum(sizes[start:]) ** 2, [start]
        options = []
        for cut in range(start + 1, len(sizes) - left + 2):
            squares, starts = best(cut, left - 1)
            options.append((sum(sizes[start:cut]) ** 2 + squares, [start, *starts]))
        return min(options)

    return best(0, stages)[1]


class Tensor(Section):
    """Single layers are cut among the workers (Shoeybi et al. 2019, arXiv:1909.08053; torch DTensor)."""

    name: Literal["tensor"]
    size: Annotated[Count, Field(ge=2)] | None = None
    """Neighbouring workers that share one model; all of them unless told. Such groups are data parallel."""
    data: Literal["replicate", "shard"] = "replicate"
    """`replicate`: every group has a copy of its own. `shard`: what groups hold the same of, they cut among
    each other, with its gradients and optimizer (torch FSDP2, `fully_shard`)."""


class MoE(Section):
    """Experts of a mixture are dealt out to the workers; tokens travel to them and back (all-to-all)."""

    name: Literal["moe"]
    size: Annotated[Count, Field(ge=2)] | None = None
    """Neighbouring workers that share a set of experts; all of them unless told."""


Strategy = Annotated[
    Single | DDP | Ring | PS | FSDP | Zero | Pipeline | Tensor | MoE, Field(discriminator="name")
]


def usual(workers: int) -> Single | DDP:
    """The strategy of a job that names none."""
    return Single(name="single") if workers == 1 else DDP(name="ddp")


def approximates(strategy: Section) -> str:
    """Why a strategy does not compute what one worker computes; empty where it does."""
    match strategy:
        case DDP(local_sgd=LocalSGD()):
            return "local_sgd: workers train apart between two averages"
        case DDP(hook=hook) if hook != "none":
            return f"hook: {hook} compresses gradients"
        case Ring(wire=wire) if wire != "same":
            return f"wire: {wire} rounds gradients"
        case PS(push="updates"):
            return "push: updates averages what workers changed apart"
        case PS(mode="async"):
            return "mode: async waits for nobody"
        case PS(mode="ssp", staleness=staleness) if staleness:
            return f"staleness: {staleness} lets workers use older parameters"
        case Zero(stage=stage, deepspeed=more):
            return _rounds(stage, more)
    return ""


# DeepSpeed's keys of `zero_optimization`, and what they round; all other stages than 3 pass them over.
_QUANTIZED = {
    "zero_quantized_weights": "parameters",
    "zero_quantized_nontrainable_weights": "frozen parameters",
    "zero_quantized_gradients": "gradients",
}


def _rounds(stage: int, deepspeed: dict[str, Any]) -> str:
    sent = str(deepspeed.get("communication_data_type")).lower()
    if sent in ("fp16", "bf16"):
        return f"deepspeed.communication_data_type: {sent} rounds gradients"
    for key, what in _QUANTIZED.items():
        if stage == 3 and deepspeed.get("zero_optimization", {}).get(key):
            return f"deepspeed.zero_optimization.{key} rounds {what}"
    return ""
