"""Several small networks of one shape, evaluated at once: ensembles, twins and populations."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

_ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "silu": nn.SiLU}


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
