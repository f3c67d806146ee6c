"""Conservative Q-learning (Kumar et al. 2020): https://arxiv.org/abs/2006.04779

The loss CQL(H) of equation 4, with the estimate of appendix F, on RLlib's networks and optimizers of SAC.
RLlib's own CQL draws its random actions within the environment's bounds, where the networks and the
densities are those of ±1, and compares `bc_iters` with a count that starts anew at each iteration.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from ray.rllib.algorithms import AlgorithmConfig, sac
from ray.rllib.algorithms.dqn.dqn_learner import QF_LOSS_KEY, QF_MEAN_KEY, QF_PREDS
from ray.rllib.algorithms.sac.sac_learner import LOGPS_KEY, QF_TWIN_LOSS_KEY, QF_TWIN_PREDS
from ray.rllib.algorithms.sac.torch.sac_torch_learner import SACTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import POLICY_LOSS_KEY
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.evaluation.postprocessing import Postprocessing
from torch import Tensor

from dlsys.rl.algorithms.catalog import Catalog
from dlsys.rl.algorithms.off_policy import WholeState
from dlsys.rl.algorithms.rllib import network
from dlsys.rl.algorithms.rllib_offline import FromEpisodes, offline
from dlsys.rl.algorithms.rllib_value import SoftModule
from dlsys.spec.rl.offline import CQL

_SOFT_MAXIMA = "soft_maxima"
# The standard deviation of what recorded steps returned, in the unit of the values.
_SPREAD = 10.0


def soft_maximum(values: Tensor, log_densities: Tensor) -> Tensor:
    """log ∫ exp Q(s, a) da, estimated with actions that were drawn with known densities.

    Args:
        values: Q of K actions for each of N observations, [K, N].
        log_densities: of these actions, [K, N].

    Returns:
        [N]
    """
    return torch.logsumexp(values - log_densities, dim=0) - math.log(len(values))


class Module(SoftModule):
    """SAC's, which tells the soft maximum of either value function, too."""

    def _forward_train(self, batch: dict[str, Any]) -> dict[str, Any]:
        out: dict[str, Any] = super()._forward_train(batch)
        seen = batch[Columns.OBS]
        actions, log_densities = self.draw(out[Columns.ACTION_DIST_INPUTS])
        many = {
            Columns.OBS: seen.expand(len(actions), *seen.shape).flatten(0, 1),
            Columns.ACTIONS: actions.flatten(0, 1),
        }
        out[_SOFT_MAXIMA] = [
            soft_maximum(self._qf_forward_train_helper(many, *parts).view(len(actions), -1), log_densities)
            for parts in ((self.qf_encoder, self.qf), (self.qf_twin_encoder, self.qf_twin))
        ]
        return out

    @torch.no_grad()
    def draw(self, policy: Tensor) -> tuple[Tensor, Tensor]:
        """Actions in ±1 for each of N observations, half of them uniform and half the policy's.

        Args:
            policy: what the policy's distribution is made of, [N, 2A].

        Returns:
            Actions [K, N, A] and the logarithms of their densities [K, N].
        """
        count = self.model_config["samples"]
        kind = self.get_train_action_dist_cls()
        own, log_own = kind.from_logits(policy).sample_and_logp(sample_shape=(count,))
        uniform = torch.empty_like(own).uniform_(-1, 1)
        log_uniform = torch.full_like(log_own, -own.shape[-1] * math.log(2))
        return torch.cat((uniform, own)), torch.cat((log_uniform, log_own))


class Learner(WholeState, SACTorchLearner):
    """Four optimizers, of two value functions, the policy and its temperature."""

    def _compute_loss_for_module_continuous(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> Tensor:
        log_temperature = self.curr_log_alpha[module_id]
        temperature = log_temperature.detach().exp()
        going = 1.0 - batch[Columns.TERMINATEDS].float()
        target = batch[Columns.REWARDS] + config.gamma * going * fwd_out["q_target_next"]
        logp = fwd_out["logp_resampled"]
        losses = {
            POLICY_LOSS_KEY: (temperature * logp - fwd_out["q_curr"]).mean(),
            "alpha_loss": -(log_temperature * (logp.detach() + self.target_entropy[module_id])).mean(),
        }
        found = [fwd_out[QF_PREDS], fwd_out[QF_TWIN_PREDS]]
        gaps = [(soft - values).mean() for soft, values in zip(fwd_out[_SOFT_MAXIMA], found, strict=True)]
        for name, values, gap in zip((QF_LOSS_KEY, QF_TWIN_LOSS_KEY), found, gaps, strict=True):
            losses[name] = config.told.weight * gap + (values - target).square().mean() / 2  # equation 4
        self._temp_losses.update({(module_id, name): loss for name, loss in losses.items()})
        figures = {
            QF_MEAN_KEY: found[0].mean(),
            "qf_of_policy_mean": fwd_out["q_curr"].mean(),
            "conservative_gap": gaps[0],
            LOGPS_KEY: logp.mean(),
            "alpha_value": temperature[0],
        }
        self.metrics.log_dict({**losses, **figures}, key=module_id, window=1)
        return sum(losses.values(), torch.zeros(()))


class Algorithm(FromEpisodes, sac.SAC):
    """RLlib's SAC but for its module, its learner and its steps.

    Rewards are in a unit that gives the recorded returns one spread everywhere: values are then learned in
    as few updates, and a weight is as conservative, whatever an environment's rewards are.
    """

    def setup(self, config: Any) -> None:
        super().setup(config)
        spread = float(self._rows[Postprocessing.VALUE_TARGETS].std())
        self._rows[Columns.REWARDS] = self._rows[Columns.REWARDS] * (_SPREAD / spread if spread > 0 else 1.0)

    def _create_local_replay_buffer_if_necessary(self, config: Any) -> None:
        """The recorded steps are all there are."""


class Config(sac.SACConfig):
    """RLlib's configuration of SAC, and what is told of the episodes."""

    @property
    def _model_config_auto_includes(self) -> dict[str, Any]:
        return super()._model_config_auto_includes | {"samples": self.told.samples}

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=Module, catalog_class=Catalog)

    def get_default_learner_class(self) -> type[Learner]:
        return Learner


def cql(told: CQL) -> AlgorithmConfig:
    """RLlib's configuration of our options."""
    done: AlgorithmConfig = (
        offline(Config, Algorithm, told)
        .training(
            actor_lr=told.lr,
            critic_lr=told.lr,
            alpha_lr=told.lr,
            initial_alpha=0.1,
            tau=told.average,
            twin_q=True,
        )
        .rl_module(model_config=network(told))
        .reporting(min_sample_timesteps_per_iteration=0)
    )
    return done
