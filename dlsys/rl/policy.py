"""The part of an RLlib module that acts, as a plain torch module."""

from __future__ import annotations

from collections.abc import Mapping
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
        return self._chosen(self.module.forward_inference({"obs": observations}))

    def _chosen(self, out: Mapping[str, Tensor]) -> Tensor:
        """Actions of what the module says."""
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


class RecurrentPolicy(Policy):
    """A policy that remembers: from observations and a state to the best actions and the next state.

    A state is one vector, whatever RLlib's module makes it of; the buffer `initial` [S] is the one where an
    episode begins.
    """

    initial: Tensor

    def __init__(self, module: Any, actions: spaces.Space[Any]) -> None:
        super().__init__(module, actions)
        first = {name: value.detach() for name, value in module.get_initial_state().items()}
        self._shapes = {name: value.shape for name, value in first.items()}
        self.register_buffer("initial", torch.cat([value.flatten() for value in first.values()]))

    def forward(self, observations: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Actions [N] or [N, …] and states [N, S] for observations [N, …] and states [N, S]."""
        parts = state.split([shape.numel() for shape in self._shapes.values()], dim=1)
        before = {
            name: part.unflatten(1, shape)
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }
        out = self.module.forward_inference({"obs": observations.unsqueeze(1), "state_in": before})
        after = out.pop("state_out")
        actions = self._chosen({name: value.squeeze(1) for name, value in out.items()})
        return actions, torch.cat([after[name].flatten(1) for name in self._shapes], dim=1)


def policy_of(module: Any, actions: spaces.Space[Any]) -> Policy:
    """The policy of RLlib's module, which may remember."""
    return (RecurrentPolicy if module.is_stateful() else Policy)(module, actions)
