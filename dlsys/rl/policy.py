"""The part of an RLlib module that acts, as a plain torch module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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

    def drawn(self, observations: Tensor) -> Tensor:
        """As `forward`, drawn from the policy's chances."""
        return self._chosen(self.module.forward_exploration({"obs": observations}), explore=True)

    def _chosen(self, out: Mapping[str, Tensor], explore: bool = False) -> Tensor:
        """Actions of what the module says."""
        if "actions" in out:
            return out["actions"]
        if explore:
            kind = self.module.get_exploration_action_dist_cls()
            chances = kind.from_logits(out["action_dist_inputs"])
        else:
            kind = self.module.get_inference_action_dist_cls()
            chances = kind.from_logits(out["action_dist_inputs"]).to_deterministic()
        chosen: Tensor = chances.sample()
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
        return self._step(self.module.forward_inference, observations, state, False)

    def drawn(self, observations: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """As `forward`, drawn from the policy's chances."""
        return self._step(self.module.forward_exploration, observations, state, True)

    def _step(self, ask: Any, observations: Tensor, state: Tensor, explore: bool) -> tuple[Tensor, Tensor]:
        parts = state.split([shape.numel() for shape in self._shapes.values()], dim=1)
        before = {
            name: part.unflatten(1, shape)
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }
        out = ask({"obs": observations.unsqueeze(1), "state_in": before})
        after = out.pop("state_out")
        actions = self._chosen({name: value.squeeze(1) for name, value in out.items()}, explore)
        return actions, torch.cat([after[name].flatten(1) for name in self._shapes], dim=1)


class PolicyPlayer:
    """Acts with a policy and nothing else; implements `dlsys.rl.agent.Player`, and `Recurrent`.

    Args:
        policy: with its weights.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def act(self, observations: NDArray[Any], explore: bool = False) -> NDArray[Any]:
        policy = self.policy
        with torch.inference_mode():
            seen = torch.as_tensor(observations, dtype=torch.float32)
            actions = policy.drawn(seen) if explore else policy(seen)
        return np.asarray(actions.cpu().numpy())

    def memory(self) -> NDArray[Any] | None:
        policy = self.policy
        return policy.initial.cpu().numpy() if isinstance(policy, RecurrentPolicy) else None

    def recall(
        self, observations: NDArray[Any], memories: NDArray[Any], explore: bool = False
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        seen, before = (torch.as_tensor(values, dtype=torch.float32) for values in (observations, memories))
        policy = self.policy
        assert isinstance(policy, RecurrentPolicy)
        with torch.inference_mode():
            actions, after = policy.drawn(seen, before) if explore else policy(seen, before)
        return actions.cpu().numpy(), after.cpu().numpy()


def policy_of(module: Any) -> Policy:
    """The policy of RLlib's module, which may remember."""
    return (RecurrentPolicy if module.is_stateful() else Policy)(module)
