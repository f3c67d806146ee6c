"""The part of an RLlib module that acts, as a plain torch module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Policy(nn.Module):
    """From observations to the best actions, as agents choose them (`dlsys.rl.actions`).

    Args:
        module: RLlib's.
    """

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, observations: Tensor) -> Tensor:
        """Actions [N] or [N, A] for observations [N, …]."""
        return self._chosen(self.module.forward_inference({"obs": observations}))

    def _chosen(self, out: Mapping[str, Tensor]) -> Tensor:
        """Actions of what the module says."""
        if "actions" in out:
            return out["actions"]
        kind = self.module.get_inference_action_dist_cls()
        chosen: Tensor = kind.from_logits(out["action_dist_inputs"]).to_deterministic().sample()
        return chosen


class RecurrentPolicy(Policy):
    """A policy that remembers: from observations and a state to the best actions and the next state.

    A state is one vector, whatever RLlib's module makes it of; the buffer `initial` [S] is the one where an
    episode begins.
    """

    initial: Tensor

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        first = {name: value.detach() for name, value in module.get_initial_state().items()}
        self._shapes = {name: value.shape for name, value in first.items()}
        self.register_buffer("initial", torch.cat([value.flatten() for value in first.values()]))

    def forward(self, observations: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Actions [N] or [N, A] and states [N, S] for observations [N, …] and states [N, S]."""
        parts = state.split([shape.numel() for shape in self._shapes.values()], dim=1)
        before = {
            name: part.unflatten(1, shape)
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }
        out = self.module.forward_inference({"obs": observations.unsqueeze(1), "state_in": before})
        after = out.pop("state_out")
        actions = self._chosen({name: value.squeeze(1) for name, value in out.items()})
        return actions, torch.cat([after[name].flatten(1) for name in self._shapes], dim=1)


def policy_of(module: Any) -> Policy:
    """The policy of RLlib's module, which may remember."""
    return (RecurrentPolicy if module.is_stateful() else Policy)(module)
