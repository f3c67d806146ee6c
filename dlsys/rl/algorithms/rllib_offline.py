"""RLlib's offline algorithms: its losses and networks, on episodes that are held in memory.

RLlib's own way to the data is a pipeline of Ray Data. That takes processes beside the learner's and
cannot go on where it was, and recordings of flat observations are small.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from ray.rllib.algorithms import AlgorithmConfig
from ray.rllib.algorithms import bc as rllib_bc
from ray.rllib.algorithms import cql as rllib_cql
from ray.rllib.algorithms import iql as rllib_iql
from ray.rllib.algorithms import marwil as rllib_marwil
from ray.rllib.algorithms.cql.torch.default_cql_torch_rl_module import DefaultCQLTorchRLModule
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, LEARNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME

from dlsys.rl.algorithms.rllib import network
from dlsys.rl.episodes import read
from dlsys.spec.rl_offline import BC, CQL, IQL, MARWIL, Offline, OfflineQ

_LEARNED = (ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME)
# What the learners of RLlib keep beside modules and optimizers, and leave out of their states.
_KEPT = ("curr_log_alpha", "moving_avg_sqd_adv_norms_per_module")


class _Recorded:
    """Makes an algorithm of RLlib learn from random rows of the recorded steps."""

    config: Any
    learner_group: Any
    env_runner_group: Any
    env_runner: Any
    metrics: Any

    def setup(self, config: Any) -> None:
        super().setup(config)  # type: ignore[misc]
        told: Offline = self.config.told
        env = self.env_runner.env
        steps = read(Path(told.episodes), env.single_observation_space, env.single_action_space)
        self._rows: dict[str, Any] = {
            Columns.OBS: steps.observations,
            Columns.ACTIONS: steps.actions,
            Columns.REWARDS: steps.rewards,
            Columns.NEXT_OBS: steps.following,
            Columns.TERMINATEDS: steps.terminated,
            Postprocessing.VALUE_TARGETS: steps.returns(told.gamma),
        }

    def training_step(self) -> None:
        told: Offline = self.config.told
        for _ in range(told.updates):
            index = np.random.randint(len(self._rows[Columns.OBS]), size=told.batch_size)
            rows: Any = SampleBatch({name: values[index] for name, values in self._rows.items()})  # type: ignore[no-untyped-call]
            batch = MultiAgentBatch({DEFAULT_MODULE_ID: rows}, env_steps=told.batch_size)
            results = self.learner_group.update(training_data=TrainingData(batch=batch))
        self.metrics.aggregate(results, key=LEARNER_RESULTS)
        self._count(told.updates * told.batch_size)
        self.env_runner_group.sync_weights(
            from_worker_or_learner_group=self.learner_group, inference_only=True
        )

    def _count(self, steps: int) -> None:
        self.metrics.log_value(_LEARNED, steps, reduce="lifetime_sum")

    def own_state(self) -> dict[str, Any]:
        """What is in no state of RLlib's."""
        learner = self.learner_group._learner
        kept = {name: dict(getattr(learner, name)) for name in _KEPT if hasattr(learner, name)}
        return {"learned": int(self.metrics.peek(_LEARNED, default=0)), "kept": kept}

    def set_own_state(self, state: dict[str, Any]) -> None:
        self._count(state["learned"] - int(self.metrics.peek(_LEARNED, default=0)))
        for name, values in state["kept"].items():
            for module, value in values.items():
                getattr(self.learner_group._learner, name)[module].data.copy_(value)


class _BC(_Recorded, rllib_bc.BC):
    pass


class _MARWIL(_Recorded, rllib_marwil.MARWIL):
    pass


class _CQL(_Recorded, rllib_cql.CQL):
    pass


class _IQL(_Recorded, rllib_iql.IQL):
    pass


class _CQLModule(DefaultCQLTorchRLModule):
    """Draws its random actions where the policy's are: in ±1."""

    def setup(self) -> None:
        super().setup()  # type: ignore[no-untyped-call]
        assert self.action_space is not None
        self.action_space = spaces.Box(-1.0, 1.0, self.action_space.shape)


def bc(told: BC) -> AlgorithmConfig:
    made: AlgorithmConfig = _common(rllib_bc.BCConfig, _BC, told).training(lr=told.lr)
    return made


def marwil(told: MARWIL) -> AlgorithmConfig:
    made: AlgorithmConfig = _common(rllib_marwil.MARWILConfig, _MARWIL, told).training(
        lr=told.lr,
        beta=told.weight,
        vf_coeff=told.value_weight,
    )
    return made


def cql(told: CQL) -> AlgorithmConfig:
    made: AlgorithmConfig = (
        _q_learner(rllib_cql.CQLConfig, _CQL, told)
        .training(
            alpha_lr=told.lr,
            # RLlib counts these afresh at each call: more than one would never end.
            bc_iters=0,
            min_q_weight=told.conservatism,
            num_actions=told.actions,
            replay_buffer_config={"type": "EpisodeReplayBuffer"},
        )
        .rl_module(rl_module_spec=RLModuleSpec(module_class=_CQLModule))
    )
    return made


def iql(told: IQL) -> AlgorithmConfig:
    made: AlgorithmConfig = _q_learner(rllib_iql.IQLConfig, _IQL, told).training(
        value_lr=told.lr, expectile=told.expectile, beta=told.weight
    )
    return made


def _q_learner(config: Any, algorithm: type, told: OfflineQ) -> Any:
    made = _common(config, algorithm, told)
    made.lr = None
    return made.training(
        actor_lr=told.lr,
        critic_lr=told.lr,
        twin_q=True,
        tau=told.average,
        target_network_update_freq=0,
    ).rl_module(
        model_config=network(told, fusionnet_hiddens=[told.hidden[-1]], fusionnet_activation=told.activation)
    )


def _common(config: Any, algorithm: type, told: Offline) -> Any:
    made = config(algorithm)
    made.told = told
    # It needs the environment's spaces, and has a module that acts where an env runner does.
    made._is_online = True
    return (
        made.offline_data(dataset_num_iters_per_learner=1)
        .training(
            gamma=told.gamma,
            train_batch_size_per_learner=told.batch_size,
            grad_clip=told.clip_norm,
            grad_clip_by="global_norm",
        )
        .rl_module(model_config=network(told, vf_share_layers=False))
    )
