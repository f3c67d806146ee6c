"""DQN and Rainbow (https://arxiv.org/abs/1710.02298): RLlib's, with what its torch network lacks.

RLlib's dueling network takes the mean alone, and with a distribution it takes it over the atoms and adds
one value to all of them, which a softmax undoes; its noisy layers are gone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from ray.rllib.algorithms import dqn as rllib
from ray.rllib.algorithms.dqn.dqn_learner import (
    ATOMS,
    QF_LOGITS,
    QF_LOSS_KEY,
    QF_MEAN_KEY,
    QF_NEXT_PREDS,
    QF_PREDS,
    QF_PROBS,
    QF_TARGET_NEXT_PREDS,
    QF_TARGET_NEXT_PROBS,
    TD_ERROR_MEAN_KEY,
)
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.metrics import TD_ERROR_KEY
from torch import Tensor, nn

from dlsys.rl.algorithms.off_policy import OffPolicy, WholeState
from dlsys.rl.learner import LeanUpdates


class NoisyLinear(nn.Module):
    """A linear layer whose weights have noise of a learned scale (https://arxiv.org/abs/1706.10295).

    The noise is factorized: f(x)·f(y) with f(x) = sign(x)·√|x|, a row of it for the inputs and one for the
    outputs.

    Args:
        wide: inputs.
        out: outputs.
        scale: σ₀; each σ starts at σ₀/√inputs.
    """

    def __init__(self, wide: int, out: int, scale: float) -> None:
        super().__init__()
        bound = 1 / math.sqrt(wide)
        self.weight = nn.Parameter(torch.empty(out, wide).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out).uniform_(-bound, bound))
        self.weight_sigma = nn.Parameter(torch.full((out, wide), scale * bound))
        self.bias_sigma = nn.Parameter(torch.full((out,), scale * bound))
        self.noise: tuple[Tensor, Tensor] | None = None

    def draw(self) -> None:
        """New noise."""
        wide, out = (torch.randn(size, device=self.weight.device) for size in reversed(self.weight.shape))
        self.noise = wide.sign() * wide.abs().sqrt(), out.sign() * out.abs().sqrt()

    def forward(self, inputs: Tensor) -> Tensor:
        if self.noise is None:
            return nn.functional.linear(inputs, self.weight, self.bias)
        wide, out = self.noise
        weight = self.weight + self.weight_sigma * torch.outer(out, wide)
        return nn.functional.linear(inputs, weight, self.bias + self.bias_sigma * out)


class QNetwork(DefaultDQNTorchRLModule):
    """RLlib's, with both kinds of dueling, for distributions too, and noisy layers.

    With noise, every linear layer after the first has it: the first one's would be of the observation's
    scale. It is drawn anew for each update and each step of the environments, and is nought when the
    best known actions are asked for.
    """

    def setup(self) -> None:
        super().setup()
        self.dueling = self.model_config["dueling"]
        if self.dueling:
            self.vf = nn.Linear(self.catalog.latent_dims[0], self.num_atoms)
        if self.model_config["noisy"]:
            found = [
                (parent, name, layer)
                for parent in self.modules()
                for name, layer in parent.named_children()
                if isinstance(layer, nn.Linear)
            ]
            for parent, name, layer in found[1:]:
                noisy = NoisyLinear(layer.in_features, layer.out_features, self.model_config["noise"])
                setattr(parent, name, noisy)

    @contextmanager
    def _noise(self) -> Iterator[None]:
        if not self.model_config["noisy"]:
            yield
            return
        layers = [layer for layer in self.modules() if isinstance(layer, NoisyLinear)]
        for layer in layers:
            layer.draw()
        try:
            yield
        finally:
            for layer in layers:
                layer.noise = None

    def _forward_exploration(self, batch: dict[str, Any], t: int) -> dict[str, Any]:
        with self._noise():
            return super()._forward_exploration(batch, t)

    def _forward_train(self, batch: dict[str, Any]) -> dict[str, Any]:
        with self._noise():
            return super()._forward_train(batch)

    def _qf_forward_helper(self, batch: dict[str, Any], encoder: Any, head: Any) -> dict[str, Any]:
        if not self.dueling:
            found: dict[str, Any] = super()._qf_forward_helper(batch, encoder, head)
            return found
        seen = encoder(batch)[ENCODER_OUT]
        # [B, actions, atoms], of one atom when the mean is learned alone.
        advantage = head["af"](seen).unflatten(-1, (-1, self.num_atoms))
        over = advantage.mean(1, keepdim=True) if self.dueling == "mean" else advantage.amax(1, keepdim=True)
        values = head["vf"](seen).unsqueeze(1) + advantage - over
        if self.num_atoms == 1:
            return {QF_PREDS: values.squeeze(-1)}
        shares = values.softmax(-1)
        atoms = torch.linspace(self.v_min, self.v_max, self.num_atoms, device=values.device)
        return {QF_PREDS: (shares * atoms).sum(-1), QF_LOGITS: values, QF_PROBS: shares, ATOMS: atoms}


def projected(shares: Tensor, moved: Tensor, atoms: Tensor) -> Tensor:
    """A distribution on other points, on the atoms (https://arxiv.org/abs/1707.06887, equation 7).

    Args:
        shares: [B, atoms], how likely each point is.
        moved: [B, atoms], where it lies; beyond the first and the last atom it counts as there.
        atoms: [atoms], evenly apart.

    Returns:
        [B, atoms]: each point's share goes to its two neighbours, more of it to the nearer one.
    """
    apart = atoms[1] - atoms[0]
    away = (moved.clamp(atoms[0], atoms[-1]).unsqueeze(-1) - atoms).abs() / apart
    return (shares.unsqueeze(-1) * (1 - away).clamp(0, 1)).sum(1)


class Learner(LeanUpdates, WholeState, DQNTorchLearner):
    """The losses of values, as RLlib's, and of distributions: RLlib's fails where rounding leads beyond the
    last atom, as it does for one range in five."""

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Tensor]
    ) -> Tensor:
        actions = batch[Columns.ACTIONS].long()
        rows = torch.arange(len(actions), device=actions.device)
        best = fwd_out[QF_NEXT_PREDS if config.double_q else QF_TARGET_NEXT_PREDS].argmax(-1)
        going = config.gamma ** batch["n_step"] * (1.0 - batch[Columns.TERMINATEDS].float())
        values = fwd_out[QF_PREDS][rows, actions]
        if config.num_atoms == 1:
            wanted = batch[Columns.REWARDS] + going * fwd_out[QF_TARGET_NEXT_PREDS][rows, best]
            each = nn.functional.huber_loss(values, wanted.detach(), reduction="none")
            errors = (values - wanted).abs()
        else:
            moved = batch[Columns.REWARDS].unsqueeze(-1) + going.unsqueeze(-1) * fwd_out[ATOMS]
            wanted = projected(fwd_out[QF_TARGET_NEXT_PROBS][rows, best], moved, fwd_out[ATOMS]).detach()
            logits = fwd_out[QF_LOGITS][rows, actions]  # rows of following states come after these
            each = errors = nn.functional.cross_entropy(logits, wanted, reduction="none")
        loss = (batch["weights"] * each).mean()
        self.metrics.log_value((module_id, TD_ERROR_KEY), errors, reduce="item_series")
        told = {QF_LOSS_KEY: loss, QF_MEAN_KEY: values.mean(), TD_ERROR_MEAN_KEY: errors.mean()}
        self.metrics.log_dict(told, key=module_id, window=1)
        return loss


class DQN(OffPolicy, rllib.DQN):
    """RLlib's algorithm."""


class DQNConfig(rllib.DQNConfig):
    """RLlib's configuration."""

    def __init__(self) -> None:
        super().__init__(algo_class=DQN)
        self.replay_options: dict[str, Any] = {}

    @property
    def _model_config_auto_includes(self) -> dict[str, Any]:
        more = {"noisy": self.noisy, "noise": self.sigma0}
        return super()._model_config_auto_includes | more

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=QNetwork, model_config=self.model_config)

    def get_default_learner_class(self) -> type[Learner]:
        return Learner
