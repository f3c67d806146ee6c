"""Sparsely gated mixtures of experts (Shazeer et al. 2017, arXiv:1701.06538).

A gate chooses few of many experts for each token, so that a layer has many parameters and computes
with few of them. Room and balance are reckoned in groups of neighbouring tokens, as in GShard (Lepikhin
et al. 2020, arXiv:2006.16668): a token's result then depends on its group alone, not on who else
is in the batch, and workers that hold whole groups compute the same as one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Routing(NamedTuple):
    """What a mixture's gate did with its tokens.

    Attributes:
        balance: scalar; 1 where all experts are used alike, up to experts/top where they are not. Its
            gradient moves the gate to use those that are used least (GShard's auxiliary loss).
        load: tokens that each expert computed, float32 (experts,).
    """

    balance: Tensor
    load: Tensor


class Experts(nn.Module):
    """Equal perceptrons of one hidden layer, with a ReLU. Expert parallelism deals them out to workers.

    Args:
        count: how many.
        inputs: numbers in a token.
        hidden: units of each.
        outputs: numbers in a result.
    """

    def __init__(self, count: int, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.count = count

        def uniform(fan_in: int, *shape: int) -> nn.Parameter:
            # As nn.Linear draws them.
            return nn.Parameter(torch.empty(count, *shape).uniform_(-(fan_in**-0.5), fan_in**-0.5))

        self.up = uniform(inputs, hidden, inputs)
        self.up_bias = uniform(inputs, hidden)
        self.down = uniform(hidden, outputs, hidden)
        self.down_bias = uniform(hidden, outputs)

    @property
    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.up, self.up_bias, self.down, self.down_bias

    def forward(self, tokens: Tensor, counts: Tensor) -> Tensor:
        """Each expert's results for its own tokens.

        Args:
            tokens: (tokens, inputs), those of the first expert first.
            counts: how many are whose, int64 (experts,).

        Returns:
            (tokens, outputs), in the same order.
        """
        return self.compute(tokens, counts, *self.weights)

    @staticmethod
    def compute(
        tokens: Tensor, counts: Tensor, up: Tensor, up_bias: Tensor, down: Tensor, down_bias: Tensor
    ) -> Tensor:
        """As `forward`, with given weights of one or more experts."""
        parts = torch.split(tokens, counts.tolist())
        # Unbound at once: backward then stacks their gradients, where indexing would add up as many
        # whole tensors.
        weights = zip(up.unbind(), up_bias.unbind(), down.unbind(), down_bias.unbind(), strict=True)
        return torch.cat(
            [F.linear(F.relu(F.linear(part, *w[:2])), *w[2:]) for part, w in zip(parts, weights, strict=True)]
        )


class MixtureOfExperts(nn.Module):
    """A gate and its experts.

    A token's result is the sum of its `top` experts' results, weighted by the gate's probabilities
    (which for two or more are made to add up to 1). An expert without room for a token leaves its
    part of the sum 0; first choices come before second ones, and earlier tokens before later ones.

    Args:
        count: experts.
        top: experts that compute each token.
        inputs: numbers in a token.
        hidden: units of each expert.
        outputs: numbers in a result.
        capacity: an expert's room in each group, as a multiple of an even share; None for all.
        group: tokens in a group.
    """

    def __init__(
        self,
        count: int,
        top: int,
        inputs: int,
        hidden: int,
        outputs: int,
        *,
        capacity: float | None = None,
        group: int = 16,
    ) -> None:
        super().__init__()
        self.top, self.capacity, self.group = top, capacity, group
        self.gate = nn.Linear(inputs, count, bias=False)
        self.experts = Experts(count, inputs, hidden, outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Routing]:
        """Results (…, outputs) of tokens (…, inputs), and how they were routed."""
        tokens = x.flatten(0, -2)
        # A gate in 16 bits chooses other experts than in 32 (Switch Transformer, arXiv:2101.03961, 2.4).
        exact = torch.promote_types(tokens.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            chances = F.linear(tokens.to(exact), self.gate.weight.to(exact)).softmax(1)
        weight, expert = chances.topk(self.top, dim=1)
        if self.top > 1:
            weight = weight / weight.sum(1, keepdim=True)
        kept, balance = self._groups(chances, expert)
        # Pairs of a token and one of its experts, those of the first expert first.
        pairs = kept.flatten().nonzero().squeeze(1)
        chosen, order = expert.flatten()[pairs].sort(stable=True)
        pairs = pairs[order]
        counts = torch.bincount(chosen, minlength=self.experts.count)
        results = self.experts(tokens[pairs // self.top], counts)
        spread = results.new_zeros(expert.numel(), results.shape[1]).index_copy(0, pairs, results)
        mixed = (spread.unflatten(0, expert.shape) * weight.unsqueeze(2)).sum(1)
        return mixed.unflatten(0, x.shape[:-1]), Routing(balance, counts.float())

    def _groups(self, chances: Tensor, expert: Tensor) -> tuple[Tensor, Tensor]:
        """Which choices find room, bool (tokens, top), and the balance loss: the mean over groups,
        weighted by their tokens.

        Args:
            chances: the gate's probabilities (tokens, experts).
            expert: each token's choices, int64 (tokens, top), the best first.
        """
        tokens, count = chances.shape
        groups = -(-tokens // self.group)
        empty = groups * self.group - tokens  # of the last group
        sizes = chances.new_full((groups,), self.group)
        sizes[-1] -= empty
        taken = F.pad(F.one_hot(expert, count), (0, 0, 0, 0, 0, empty)).view(groups, self.group, -1, count)
        used = taken.sum((1, 2)) / (sizes * self.top).unsqueeze(1)
        meant = F.pad(chances, (0, 0, 0, empty)).view(groups, self.group, count).sum(1)
        # (groups, experts): the shares of choices, and the sums of probabilities, which add up to `sizes`.
        balance = count * (used * meant).sum() / tokens
        if self.capacity is None:
            return torch.ones_like(expert, dtype=torch.bool), balance
        room = (self.capacity * self.top / count * sizes).ceil()
        queue = taken.transpose(1, 2).flatten(1, 2)  # (groups, top · group, experts)
        before = ((queue.cumsum(1) - queue) * queue).sum(2)
        kept = (before < room.unsqueeze(1)).view(groups, self.top, self.group).transpose(1, 2)
        return kept.flatten(0, 1)[:tokens], balance
