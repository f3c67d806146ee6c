"""What a policy draws actions from: categories and normal distributions, side by side, or squashed ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy

import torch
from torch import Generator, Tensor
from torch.nn import functional

from dlsys.rl.actions import Actions
from dlsys.spec.rl.spaces import MASK

_LOG_TWO_PI = math.log(2 * math.pi)
# Between which the logarithms of squashed numbers' deviations lie.
_LOG_STD = (-5.0, 2.0)


class Chances:
    """Of N observations.

    Args:
        actions: the environment's.
        outputs: of a network: the logarithms of chances, up to a constant each, of every choice of every
            index, and then the means of numbers, [N, width].
        log_std: the logarithm of the numbers' deviations, [A] or [N, A].
        mask: which choices of all indices are legal, [N, K]; others are never drawn.
    """

    def __init__(
        self, actions: Actions, outputs: Tensor, log_std: Tensor | None = None, mask: Tensor | None = None
    ) -> None:
        self._single, self._counts = actions.single, actions.counts
        total = sum(self._counts)
        logits = outputs if not actions.numbers else outputs[..., :total]
        if mask is not None and total:
            # Not minus infinity, whose product with a chance of nought would be no number.
            logits = logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
        split = logits.split(self._counts, -1) if len(self._counts) > 1 else [logits] * len(self._counts)
        self.categories = [part.log_softmax(-1) for part in split]
        self.mean = outputs[..., total:] if actions.numbers else None
        self.log_std = log_std

    def fixed(self) -> Chances:
        """As they are now, whatever becomes of the network."""
        found = copy(self)
        found.categories = [part.detach() for part in self.categories]
        found.mean = None if self.mean is None else self.mean.detach()
        # A parameter itself, which others change in place.
        found.log_std = None if self.log_std is None else self.log_std.detach().clone()
        return found

    @staticmethod
    def width(actions: Actions) -> int:
        """How many outputs of a network it takes."""
        return sum(actions.counts) + actions.numbers

    def sample(self, generator: Generator | None = None) -> Tensor:
        """Actions as agents choose them, [N] or [N, K + A]."""
        # The least of exponential times divided by chances falls on each choice with its chance.
        drawn = [
            (part.exp() / torch.empty_like(part).exponential_(generator=generator)).argmax(-1)
            for part in self.categories
        ]
        if self.mean is None or self.log_std is None:
            return self._joined(drawn, None)
        noise = normal(self.mean, generator)
        return self._joined(drawn, self.mean + self.log_std.exp() * noise)

    def best(self) -> Tensor:
        """The likeliest ones."""
        return self._joined([part.argmax(-1) for part in self.categories], self.mean)

    def _joined(self, indices: list[Tensor], numbers: Tensor | None) -> Tensor:
        if self._single:
            return indices[0]
        if numbers is None:
            return torch.stack(indices, -1)
        return torch.cat([torch.stack(indices, -1).to(numbers.dtype), numbers], -1) if indices else numbers

    def logp(self, actions: Tensor) -> Tensor:
        """The logarithms of the chances, or densities, of actions; [N]."""
        if self._single:
            return self.categories[0].gather(-1, actions.long().unsqueeze(-1)).squeeze(-1)
        found = [
            part.gather(-1, actions[..., place : place + 1].long()).squeeze(-1)
            for place, part in enumerate(self.categories)
        ]
        if self.mean is not None and self.log_std is not None:
            away = (actions[..., len(self._counts) :] - self.mean) * (-self.log_std).exp()
            found.append(-(away.square() / 2 + self.log_std + _LOG_TWO_PI / 2).sum(-1))
        return sum(found[1:], found[0])

    def entropy(self) -> Tensor:
        """[N]"""
        found = [-(part.exp() * part).sum(-1) for part in self.categories]
        if self.mean is not None and self.log_std is not None:
            found.append((self.log_std + (1 + _LOG_TWO_PI) / 2).expand_as(self.mean).sum(-1))
        return sum(found[1:], found[0])

    def kl(self, other: Chances) -> Tensor:
        """The Kullback-Leibler divergence of another one from this, KL(self ‖ other); [N]."""
        pairs = zip(self.categories, other.categories, strict=True)
        found = [(mine.exp() * (mine - yours)).sum(-1) for mine, yours in pairs]
        if self.mean is not None and self.log_std is not None:
            assert other.mean is not None
            assert other.log_std is not None
            ratio = (2 * (self.log_std - other.log_std)).exp()
            away = ((self.mean - other.mean) * (-other.log_std).exp()).square()
            found.append(((ratio + away - 1) / 2 + other.log_std - self.log_std).sum(-1))
        return sum(found[1:], found[0])


class Squashed:
    """Numbers in ±1: the hyperbolic tangents of normal ones.

    Args:
        outputs: of a network: means, and what becomes deviations, [..., 2A].
    """

    def __init__(self, outputs: Tensor) -> None:
        self.mean, raw = outputs.chunk(2, -1)
        low, high = _LOG_STD
        self.log_std = low + (high - low) * (raw.tanh() + 1) / 2

    def sample(self, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Actions [..., A], and the logarithms of their densities [...]."""
        noise = normal(self.mean, generator)
        before = self.mean + self.log_std.exp() * noise
        density = -noise.square() / 2 - self.log_std - _LOG_TWO_PI / 2
        # log(1 - tanh(x)²), where that would be the logarithm of 0
        squashed = 2 * (math.log(2) - before - functional.softplus(-2 * before))
        return before.tanh(), (density - squashed).sum(-1)

    def best(self) -> Tensor:
        """The middle of them."""
        return self.mean.tanh()


def normal(like: Tensor, generator: Generator | None) -> Tensor:
    """Normal numbers of a tensor's shape, where it is; the generator may be elsewhere."""
    place = like.device if generator is None else generator.device
    return torch.randn(like.shape, generator=generator, device=place).to(like.device)


def even(like: Tensor, generator: Generator | None) -> Tensor:
    """Likewise numbers in ±1, all as likely."""
    place = like.device if generator is None else generator.device
    return torch.rand(like.shape, generator=generator, device=place).to(like.device) * 2 - 1


def mask_of(seen: Mapping[str, Tensor]) -> Tensor | None:
    """Which choices are legal, where that is told."""
    return seen.get(MASK)
