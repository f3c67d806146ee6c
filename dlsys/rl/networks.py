"""Networks of agents: what comes of what is seen, what is remembered of it, and several small ones at
once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from dlsys.errors import UsageError
from dlsys.registry import import_string
from dlsys.rl.observations import NUMBERS, Observations
from dlsys.spec.rl.job import RLJob
from dlsys.spec.rl.section import Deep
from dlsys.spec.rl.spaces import MASK

_ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "silu": nn.SiLU}
# The side of an image that is not halved again.
_SMALL = 5
# Standardized numbers beyond this are as if they were at it.
_FAR = 10.0


def activation(name: str) -> nn.Module:
    """One of those that `algorithm.activation` may name."""
    return _ACTIVATIONS[name]()


class Linears(nn.Module):
    """A linear layer of each of E networks."""

    def __init__(self, networks: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(networks, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(networks, 1, outputs).uniform_(-bound, bound))

    def forward(self, inputs: Tensor) -> Tensor:
        """[E, N, inputs] to [E, N, outputs]."""
        return torch.baddbmm(self.bias, inputs, self.weight)


def networks(
    count: int, inputs: int, outputs: int, hidden: tuple[int, ...], activation: str
) -> nn.Sequential:
    """Fully connected networks, from [count, N, inputs] to [count, N, outputs]."""
    layers: list[nn.Module] = []
    for before, after in pairwise((inputs, *hidden)):
        layers += [Linears(count, before, after), _ACTIVATIONS[activation]()]
    return nn.Sequential(*layers, Linears(count, hidden[-1], outputs))


class Running(nn.Module):
    """The mean and the variance of all numbers seen so far, which standardize new ones.

    They are buffers: saved, exported, and the same for whoever acts. Only `update` changes them.

    Args:
        size: of a vector.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(size, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def update(self, values: Tensor) -> None:
        """Takes [N, size] in (Chan et al. 1979: the moments of two sets from those of each)."""
        values = values.reshape(-1, len(self.mean)).double()
        count, mean = len(values), values.mean(0)
        total = self.count + count
        away = mean - self.mean
        # Of nothing seen yet the variance counts for nothing.
        squares = self.variance * self.count + values.var(0, unbiased=False) * count
        squares += away.square() * self.count * count / total
        self.mean.add_(away * count / total)
        self.variance.copy_(squares / total)
        self.count.copy_(total)

    def forward(self, values: Tensor) -> Tensor:
        scaled = (values - self.mean.float()) * (self.variance.float() + 1e-8).rsqrt()
        return scaled.clamp(-_FAR, _FAR)


class Convolutions(nn.Module):
    """From images [N, height, width, channels] to [N, width].

    Args:
        shape: [height, width, channels].
        low, high: of its values, which become 0 to 1.
        filters: channels, side and stride of each; none: it is halved until few numbers are left.
        activation: after each.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        low: float,
        high: float,
        filters: tuple[tuple[int, int, int], ...],
        activation: str,
    ) -> None:
        super().__init__()
        channels, sides = shape[2], list(shape[:2])
        self._low, self._range = low, high - low
        layers: list[nn.Module] = []
        for after, side, stride in filters or _halving(min(sides)):
            around = (side - 1) // 2 if not filters else 0
            if min(sides) + 2 * around < side:
                raise UsageError(
                    f"model.filters: a filter of {side} does not fit what is left of an image of {shape}: "
                    f"{sides[0]} × {sides[1]}"
                )
            layers += [nn.Conv2d(channels, after, side, stride, around), _ACTIVATIONS[activation]()]
            channels, sides = after, [(length + 2 * around - side) // stride + 1 for length in sides]
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.width = channels * sides[0] * sides[1]

    def forward(self, images: Tensor) -> Tensor:
        scaled = (images.float() - self._low) / self._range
        found: Tensor = self.layers(scaled.movedim(-1, -3))
        return found


def _halving(side: int) -> list[tuple[int, int, int]]:
    found: list[tuple[int, int, int]] = []
    while side > _SMALL:
        found.append((min(16 * 2 ** len(found), 64), 3, 2))
        side = -(-side // 2)
    return found


class Features(nn.Module):
    """One vector of all that is seen: the numbers, standardized if the job says so, and what convolutions
    make of each image; or what the user's own network makes of it.

    Args:
        observations: what there is to see.
        job: says how.

    Attributes:
        width: of the vector.
    """

    def __init__(self, observations: Observations, job: RLJob) -> None:
        super().__init__()
        assert isinstance(job.algorithm, Deep)
        self.running = None
        if job.normalize.observation and NUMBERS in observations.shapes:
            self.running = Running(observations.shapes[NUMBERS][0])
        self.images = nn.ModuleDict()
        self.own = None
        if job.model.module:
            self.own = _own(job, observations)
            self.width = self._measured(observations, job.model.module)
            return
        for name, read in observations.pictures.items():
            shape, activation = observations.shapes[name], job.algorithm.activation
            told = Convolutions(shape, read.low, read.high, job.model.filters, activation)
            self.images[_key(name)] = told
        self._names = list(observations.pictures)
        self.width = observations.shapes.get(NUMBERS, (0,))[0]
        self.width += sum(layers.width for layers in self.images.values() if isinstance(layers, Convolutions))

    def _measured(self, observations: Observations, name: str) -> int:
        seen = {
            part: torch.zeros(2, *shape, dtype=torch.as_tensor(observations.empty(0)[part]).dtype)
            for part, shape in observations.shapes.items()
        }
        with torch.no_grad():
            found: Any = self(seen)
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != 2:
            said = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise UsageError(
                f"model.module: {name} must give [N, features] for N observations, and gives {said} for 2"
            )
        return found.shape[1]

    def update(self, seen: Mapping[str, Tensor]) -> None:
        """Takes observations [N, …] into what numbers are standardized by."""
        if self.running is not None:
            self.running.update(seen[NUMBERS])

    def forward(self, seen: Mapping[str, Tensor]) -> Tensor:
        """[N, width] for what is seen [N, …]."""
        if self.running is not None:
            seen = {**seen, NUMBERS: self.running(seen[NUMBERS])}
        if self.own is not None:
            whole: Tensor = self.own({name: value for name, value in seen.items() if name != MASK})
            return whole
        parts = [seen[NUMBERS]] if NUMBERS in seen else []
        parts += [self.images[_key(name)](seen[name]) for name in self._names]
        return torch.cat(parts, -1) if len(parts) > 1 else parts[0]


@contextmanager
def learning(network: nn.Module) -> Iterator[None]:
    """Within it, a network of the user's does what it does in training alone, such as dropout."""
    network.train()
    try:
        yield
    finally:
        network.eval()


class Seeing(nn.Module):
    """What sees, and may remember: how the networks of all policies begin.

    Args:
        observations: what there is to see.
        job: says how.

    Attributes:
        initial: what it remembers where an episode begins, [S]; S may be 0.
        width: of what comes out, F.
    """

    initial: Tensor

    def __init__(self, observations: Observations, job: RLJob) -> None:
        super().__init__()
        self.features = Features(observations, job)
        self.width, self.memory, initial = self.features.width, None, torch.zeros(0)
        if job.model.memory:
            self.memory = Memory(self.width, job.model.units, job.model.memory)
            self.width, initial = job.model.units, self.memory.initial
        self.register_buffer("initial", initial, persistent=False)

    def remembered(self, seen: Mapping[str, Tensor], memory: Tensor) -> tuple[Tensor, Tensor]:
        """What comes of what is seen [N, …] and remembered [N, S]: [N, F], and what is remembered then."""
        features = self.features(seen)
        return (features, memory) if self.memory is None else self.memory(features, memory)

    def through(self, seen: Mapping[str, Tensor], memory: Tensor, first: Tensor) -> Tensor:
        """The same of T steps of N episodes [T, N, …], in rows [T · N, F].

        Args:
            seen: theirs.
            memory: before the first of them, [N, S].
            first: where an episode begins, [T, N].
        """
        features: Tensor = self.features({name: value.flatten(0, 1) for name, value in seen.items()})
        if self.memory is None:
            return features
        return self.memory.sequence(features.unflatten(0, first.shape), memory, first).flatten(0, 1)


def _key(name: str) -> str:
    """A name of a submodule, which may have no dot."""
    return name.replace(".", "/")


def _own(job: RLJob, observations: Observations) -> nn.Module:
    assert job.model.module
    try:
        made = import_string(job.model.module)(dict(observations.shapes), **job.model.options)
    except TypeError as error:
        raise UsageError(
            f"model.module: {job.model.module} cannot be made: {error}; it is called with the shapes of what "
            f"is seen by name, here {dict(observations.shapes)}, and with model.options"
        ) from error
    if not isinstance(made, nn.Module):
        raise UsageError(
            f"model.module: {job.model.module} makes a {type(made).__name__}, and no torch.nn.Module"
        )
    return made


class Memory(nn.Module):
    """What is remembered of an episode: an LSTM's or a GRU's state as one vector.

    Args:
        inputs: width of what comes in.
        units: of the network.
        kind: which.

    Attributes:
        initial: where an episode begins, [S].
    """

    initial: Tensor

    def __init__(self, inputs: int, units: int, kind: str) -> None:
        super().__init__()
        self.cell = (nn.LSTMCell if kind == "lstm" else nn.GRUCell)(inputs, units)
        self._units, self._two = units, kind == "lstm"
        self.register_buffer("initial", torch.zeros(units * (2 if self._two else 1)), persistent=False)

    def forward(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """What comes out [N, units] and the states after it [N, S], of what came in [N, inputs]."""
        if not self._two:
            out = self.cell(inputs, state)
            return out, out
        hidden, cell = self.cell(inputs, (state[:, : self._units], state[:, self._units :]))
        return hidden, torch.cat([hidden, cell], 1)

    def sequence(self, inputs: Tensor, state: Tensor, first: Tensor) -> Tensor:
        """[T, N, units] of sequences [T, N, inputs].

        Args:
            inputs: theirs.
            state: before the first step, [N, S].
            first: where an episode begins, [T, N]: what was before is forgotten.
        """
        found = []
        for step, begins in zip(inputs, first.unsqueeze(-1), strict=True):
            out, state = self(step, torch.where(begins, self.initial, state))
            found.append(out)
        return torch.stack(found)
