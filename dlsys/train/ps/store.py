"""One server's shards, and the rule by which gradients change them."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dlsys.spec.train.job import TrainJob
from dlsys.spec.train.strategy import PS
from dlsys.train.checkpoint.tree import flatten, unflatten
from dlsys.train.optim import build as build_optimizer
from dlsys.train.ps.parts import Part, part, touched
from dlsys.train.ps.shards import Layout
from dlsys.train.regularize import Regularizers
from dlsys.train.schedule import apply

# Under these rules, without momentum and decay, a weight without a gradient stays as it is.
_STILL_WITHOUT_GRADIENT = ("sgd", "minibatch-sgd", "gd", "adagrad", "rmsprop", "adadelta")


class Store:
    """Weights and optimizers of one server. Not for several threads at once.

    Attributes:
        weights: one parameter for each shard of the layout.
        version: counts whatever changed weights.
        updates: for each phase, the updates so far.
    """

    def __init__(self, job: TrainJob, layout: Layout) -> None:
        assert isinstance(job.strategy, PS)
        self.layout = layout
        self.version = 0
        self.updates: Counter[str] = Counter()
        self.weights = [nn.Parameter(torch.zeros(s.shape, dtype=s.torch_dtype)) for s in layout.shards]
        # When each row of an embedding, and each other shard as a whole, was changed last.
        self._changed = [
            torch.zeros(shard.stop - shard.start if shard.table else 1, dtype=torch.int64)
            for shard in layout.shards
        ]
        self._job = job
        self._updates = job.strategy.push == "updates"
        self._rows_apart = self._updates or _rows_apart(job)
        self._regularizers = Regularizers(job.regularize)
        self._optimizers = {
            phase: build_optimizer(job.optimizer, self._of(phase))
            for phase, numbers in layout.phases.items()
            if numbers
        }

    def _of(self, phase: str) -> list[nn.Parameter]:
        return [self.weights[number] for number in self.layout.phases[phase]]

    def _named(self, phase: str) -> list[tuple[str, nn.Parameter]]:
        return [(self.layout.shards[i].name, self.weights[i]) for i in self.layout.phases[phase]]

    def take(self, phase: str, gradients: Mapping[int, Tensor]) -> None:
        """Makes one worker's gradients, by shard, those of the next `step`."""
        for number in self.layout.phases[phase]:
            self.weights[number].grad = gradients.get(number)

    def average(self, phase: str, pushes: Sequence[Mapping[int, Tensor]]) -> float:
        """Makes the workers' mean gradient that of the next `step`.

        Sums are taken in the order of `pushes`, in the first one's tensors: the same bits each time.

        Returns:
            The square of the norm of this server's part of the gradient, penalties included.
        """
        first = dict(pushes[0])
        for push in pushes[1:]:
            both = first.keys() & push.keys()
            if both:
                torch._foreach_add_([first[i] for i in both], [push[i] for i in both])
            first.update({i: gradient for i, gradient in push.items() if i not in first})
        if len(pushes) > 1 and first:
            torch._foreach_mul_(list(first.values()), 1 / len(pushes))
        self.take(phase, first)
        if not self._updates:
            self._regularizers.penalize(self._named(phase))
        gradients = [weight.grad for weight in self._of(phase) if weight.grad is not None]
        return sum(float(norm) ** 2 for norm in torch._foreach_norm(gradients)) if gradients else 0.0

    @torch.no_grad()
    def step(self, phase: str, hyper: Mapping[str, float | None], scale: float = 1.0) -> None:
        """One update of a phase by its gradients times `scale`."""
        given: list[Tensor] = [weight for weight in self._of(phase) if weight.grad is not None]
        gradients = [weight.grad for weight in given if weight.grad is not None]
        if scale != 1.0 and gradients:
            torch._foreach_mul_(gradients, scale)
        self.version += 1
        self.updates[phase] += 1
        self._note(phase)
        if self._updates:
            if given:
                torch._foreach_add_(given, gradients)
        elif phase in self._optimizers:
            if self._job.gradient.clip_value is not None:
                nn.utils.clip_grad_value_(given, self._job.gradient.clip_value)
            optimizer = self._optimizers[phase]
            apply(optimizer, hyper)
            optimizer.step()
            self._regularizers.after_step(self._named(phase), float(hyper["lr"] or 0.0))
        for weight in given:
            weight.grad = None

    def _note(self, phase: str) -> None:
        """Which rows the coming update changes."""
        for number in self.layout.phases[phase]:
            gradient = self.weights[number].grad
            if not self._rows_apart:
                self._changed[number].fill_(self.version)
            elif gradient is not None:
                rows = touched(gradient) if self.layout.shards[number].table else slice(None)
                self._changed[number][rows] = self.version

    def changed(self, phase: str, since: int) -> list[Part]:
        """What a worker needs that has everything up to version `since`. Values alias the live ones."""
        found = []
        for number in self.layout.phases[phase]:
            later = self._changed[number] > since
            if bool(later.any()):
                shard, weight = self.layout.shards[number], self.weights[number].detach()
                rows = later.nonzero().squeeze(1) if shard.table else None
                found.append(part(number, shard, weight, rows))
        return found

    def state(self) -> dict[str, Any]:
        """Weights and the optimizers' state by shard number; tensors are the live ones."""
        states = {}
        for phase, optimizer in self._optimizers.items():
            saved, numbers = optimizer.state_dict()["state"], self.layout.phases[phase]
            states[phase] = {numbers[index]: values for index, values in saved.items()}
        return {"weights": {i: weight.detach() for i, weight in enumerate(self.weights)}, "states": states}

    @torch.no_grad()
    def load(self, state: Mapping[str, Any]) -> None:
        """Takes what `state` gave, its keys as text."""
        for number, value in state["weights"].items():
            self.weights[int(number)].copy_(value)
        for phase, optimizer in self._optimizers.items():
            index = {number: i for i, number in enumerate(self.layout.phases[phase])}
            values = state["states"].get(phase, {})
            optimizer.load_state_dict(
                {
                    "state": {index[int(number)]: value for number, value in values.items()},
                    "param_groups": optimizer.state_dict()["param_groups"],
                }
            )
        self.version += 1
        for changed in self._changed:
            changed.fill_(self.version)


def _rows_apart(job: TrainJob) -> bool:
    """Whether an embedding's row without a gradient stays as it is in an update."""
    optimizer, regularizers = job.optimizer, {r.name for r in job.regularize}
    return (
        optimizer.name in _STILL_WITHOUT_GRADIENT
        and not optimizer.weight_decay
        and not job.keeps_momentum
        and not regularizers & {"l1", "l2", "elastic-net", "weight-decay", "max-norm"}
    )


def write_snapshot(path: Path, layout: Layout, state: Mapping[str, Any]) -> None:
    """Replaces the snapshot as a whole."""
    tensors: dict[str, Tensor] = {}
    tree = flatten(dict(state), tensors, "")
    text = json.dumps({"layout": layout.to_dict(), "tree": tree})
    beside = path.with_name(f".{path.name}")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, beside, {"dlsys": text})
    os.replace(beside, path)


def read_snapshot(path: Path, job: TrainJob) -> Store | None:
    """The store of a snapshot; None where there is none."""
    if not path.exists():
        return None
    with safe_open(path, framework="pt") as file:
        document = json.loads(file.metadata()["dlsys"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    store = Store(job, Layout.from_dict(document["layout"]))
    store.load(unflatten(document["tree"], tensors))
    return store
