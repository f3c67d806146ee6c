"""What models may be made of, under each strategy: `make limits` writes docs/limits.md with it."""

from __future__ import annotations

import logging
import re
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from harness import POOL, job, reference, with_workers
from torch import Tensor, nn

from dlsys.errors import DlsysError
from dlsys.spec.train.job import TrainJob
from dlsys.train.trace import Trace, compare

JOB = """
kind: train
name: limits
data: {source: digits}
batch_size: 16
optimizer: {name: adamw, lr: 0.01, weight_decay: 0.1}
stop: {steps: 4}
tracking: {log_every: 1}
"""
STRATEGIES = {
    "ddp": "{name: ddp}",
    "ring": "{name: ring}",
    "ps": "{name: ps}",
    "fsdp": "{name: fsdp}",
    "zero 1": "{name: zero, stage: 1}",
    "zero 2": "{name: zero, stage: 2}",
    "zero 3": "{name: zero, stage: 3}",
    "pipeline": "{name: pipeline, micro_batches: 2}",
}


def around(block: Callable[[], nn.Module], wide: int = 12) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), block(), nn.Linear(wide, 12), nn.Linear(12, 10))


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.full((12, 12), -torch.inf).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.mask.softmax(1).T


class Turned(nn.Module):
    def __init__(self, trained: bool) -> None:
        super().__init__()
        turn = torch.polar(torch.ones(12), torch.arange(12.0))
        if trained:
            self.turn = nn.Parameter(turn)
        else:
            self.register_buffer("turn", turn)

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.turn).real


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Sometimes(nn.Module):
    """Its parameter is used for rows with a large first number alone."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.ones(12))

    def forward(self, x: Tensor) -> Tensor:
        rows = (x[:, 0] > 0.5).nonzero().flatten()
        return x.index_add(0, rows, self.shift.expand(len(rows), -1)) if len(rows) else x


class Never(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 12), nn.Linear(12, 12)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


class Frozen(nn.Linear):
    def __init__(self) -> None:
        super().__init__(12, 12)
        self.requires_grad_(False)


class Looked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 12, sparse=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table(torch.zeros(len(x), dtype=torch.int64))


class Pair(nn.Sequential):
    def forward(self, x: Any) -> Any:
        return super().forward(x), x


class Mapped(nn.Sequential):
    def forward(self, x: Any) -> Any:
        return {"hidden": x, "logits": super().forward(x)}


def tuple_output() -> nn.Module:
    return Pair(*around(nn.Tanh))


def mapping_output() -> nn.Module:
    return Mapped(*around(nn.Tanh))


def lazy() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(12), nn.Tanh(), nn.LazyLinear(12), nn.LazyLinear(10))


def compiled() -> nn.Module:
    return torch.compile(around(nn.Tanh), backend="eager")  # type: ignore[return-value]


def infinities() -> nn.Module:
    return around(Masked)


def complex_buffer() -> nn.Module:
    return around(lambda: Turned(trained=False))


def complex_parameter() -> nn.Module:
    return around(lambda: Turned(trained=True))


def scalar_parameter() -> nn.Module:
    return around(Scaled)


def used_by_some_rows() -> nn.Module:
    return around(Sometimes)


def never_used() -> nn.Module:
    return around(Never)


def tied() -> nn.Module:
    return around(Tied)


def frozen() -> nn.Module:
    return around(Frozen)


def sparse_gradients() -> nn.Module:
    return around(Looked)


def batch_norm() -> nn.Module:
    return around(lambda: nn.BatchNorm1d(12))


def too_few_outputs() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "several outputs": tuple_output,
    "a mapping as output": mapping_output,
    "lazy layers": lazy,
    "torch.compile": compiled,
    "infinities in a buffer": infinities,
    "a complex buffer": complex_buffer,
    "a complex parameter": complex_parameter,
    "a parameter without dims": scalar_parameter,
    "a parameter that some rows use": used_by_some_rows,
    "a parameter that nothing uses": never_used,
    "tied weights": tied,
    "frozen layers": frozen,
    "sparse gradients": sparse_gradients,
    "batch norm": batch_norm,
    "fewer outputs than classes": too_few_outputs,
}


def make(model: Callable[[], nn.Module], *overrides: str) -> TrainJob:
    return job(JOB, f"workload=limits:{model.__name__}", *overrides)


def cell(model: Callable[[], nn.Module], strategy: str) -> tuple[str, str]:
    """A word for the table, and the message behind it."""
    try:
        truth = reference(make(model))
        several = make(model, f"strategy={strategy}", "resources.workers=2")
        with tempfile.TemporaryDirectory() as folder:
            found = with_workers(several, Path(folder))
    except (DlsysError, AssertionError) as error:
        told = re.findall(r"dlsys\.errors\.\w+Error: (.*)", str(error))
        return "refused", told[-1] if told else str(error).strip().splitlines()[-1]
    difference = compare(Trace.of(truth.points, truth.weights), Trace.of(found.points, found.weights))
    return ("yes", "") if difference.agrees else ("differs", "; ".join(difference.problems))


def main() -> None:
    """Prints the page."""
    sys.path.insert(0, str(Path(__file__).parent))
    warnings.simplefilter("ignore")
    logging.disable()  # what DeepSpeed says of the machine
    print("# What models may be made of\n")
    print("What `make limits` said last, with 2 workers. *yes*: it computes what one worker computes.")
    print("*differs*: batch norm sees its own worker's rows. *refused*: before anything is trained, with the")
    print("message below.\n")
    print(f"| a model with | {' | '.join(STRATEGIES)} |\n|---|{'---|' * len(STRATEGIES)}")
    messages: dict[str, list[str]] = {}
    for title, model in MODELS.items():
        words = []
        for name, strategy in STRATEGIES.items():
            word, message = cell(model, strategy)
            words.append(word)
            if word == "refused":
                messages.setdefault(message, []).append(f"{title} under {name}")
        print(f"| {title} | {' | '.join(words)} |", flush=True)
    print("\n## The messages\n")
    for message, places in messages.items():
        told = ", ".join(places) if len(places) < len(STRATEGIES) else places[0].partition(" under ")[0]
        print(f"- {told}:\n  > {message}")
    POOL.close()


if __name__ == "__main__":
    main()
