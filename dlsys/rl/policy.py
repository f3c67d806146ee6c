"""The part of an RLlib module that acts, as a plain torch module."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn


class Policy(nn.Module):
    """From observations to the best actions, in the environment's own terms.

    Args:
        module: RLlib's.
        actions: what the environment takes. Networks choose continuous actions in ±1, which are
            stretched to its bounds.
    """

    def __init__(self, module: Any, actions: spaces.Space[Any]) -> None:
        super().__init__()
        self.low: Tensor
        self.high: Tensor
        self.module = module
        self._discrete = isinstance(actions, spaces.Discrete)
        self._start = int(getattr(actions, "start", 0))
        if isinstance(actions, spaces.Box):
            self.register_buffer("low", torch.as_tensor(actions.low, dtype=torch.float32))
            self.register_buffer("high", torch.as_tensor(actions.high, dtype=torch.float32))

    def forward(self, observations: Tensor) -> Tensor:
        """Actions [N] or [N, …] for observations [N, …]."""
        out = self.module.forward_inference({"obs": observations})
        if "actions" in out:
            chosen = out["actions"]
        else:
            kind = self.module.get_inference_action_dist_cls()
            chosen = kind.from_logits(out["action_dist_inputs"]).to_deterministic().sample()
        if self._discrete:
            discrete: Tensor = chosen + self._start
            return discrete
        return self.stretch(chosen)

    def stretch(self, chosen: Tensor) -> Tensor:
        """Actions in ±1, as the environment takes them."""
        stretched = self.low + (chosen + 1.0) * (self.high - self.low) / 2.0
        return torch.minimum(torch.maximum(stretched, self.low), self.high)
