"""A residual network for boards (He et al. 2015), with a policy and a value."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dlsys.rl.games.game import Game


class Block(nn.Module):
    """Two convolutions beside what they add to. It begins as the identity, which takes the place of a
    normalization: positions are as good alone as in a batch."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, inputs: Tensor) -> Tensor:
        """[N, channels, height, width], as they came."""
        return functional.relu(inputs + self.second(functional.relu(self.first(inputs))))


class BoardNetwork(nn.Module):
    """From `Game.planes` to a policy's logits and a value in ±1.

    Args:
        game: says how large boards are.
        channels: of each layer.
        blocks: of two layers each.
    """

    def __init__(self, game: Game, channels: int, blocks: int) -> None:
        super().__init__()
        flat = 8 * game.height * game.width
        self.trunk = nn.Sequential(
            nn.Conv2d(game.channels, channels, 3, padding=1),
            nn.ReLU(),
            *(Block(channels) for _ in range(blocks)),
            nn.Conv2d(channels, 16, 1),
            nn.ReLU(),
        )
        self.policy = nn.Linear(flat, game.actions)
        self.value = nn.Sequential(nn.Linear(flat, 64), nn.ReLU(), nn.Linear(64, 1), nn.Tanh())

    def forward(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [N, actions] and values [N] of planes [N, height, width, channels]."""
        policy, value = self.trunk(planes.permute(0, 3, 1, 2)).split(8, 1)
        return self.policy(policy.flatten(1)), self.value(value.flatten(1)).squeeze(1)

    def forward_inference(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The most likely moves [N], legal or not."""
        return {"actions": self(batch["obs"])[0].argmax(1)}


def cross_entropy(logits: Tensor, policies: Tensor) -> Tensor:
    """Of each row, [N]."""
    return -(policies * torch.log_softmax(logits, -1)).sum(-1)
