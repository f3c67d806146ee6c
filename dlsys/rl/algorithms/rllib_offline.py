"""RLlib's offline algorithms: its losses and networks, on episodes that are held in memory.

RLlib's own way to the data is a pipeline of Ray Data. That takes processes beside the learner's and
cannot go on where it was, and recordings of flat observations are small.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ray.rllib.algorithms import AlgorithmConfig
from ray.rllib.algorithms import bc as rllib_bc
from ray.rllib.algorithms import iql as rllib_iql
from ray.rllib.algorithms import marwil as rllib_marwil
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, LEARNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME

from dlsys.rl.algorithms.rllib import network
from dlsys.rl.environments import Made
from dlsys.rl.episodes import read
from dlsys.spec.rl.offline import BC, IQL, MARWIL, Offline

_LEARNED = (ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME)
# What MARWIL's learner keeps beside modules and optimizers, and leaves out of its state.
_NORMS = "moving_avg_sqd_adv_norms_per_module"


class FromEpisodes:
    """Makes an algorithm of RLlib learn from random rows of the recorded steps."""

    config: Any
    learner_group: Any
    env_runner_group: Any
    metrics: Any

    def setup(self, config: Any) -> None:
        super().setup(config)  # type: ignore[misc]
        told: Offline = self.config.told
        env = Made(self.config.env_config)
        steps = read(Path(told.episodes), env.observation_space, env.actions)
        env.close()
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
        norms = dict(getattr(self.learner_group._learner, _NORMS, {}))
        return {"learned": int(self.metrics.peek(_LEARNED, default=0)), "norms": norms}

    def set_own_state(self, state: dict[str, Any]) -> None:
        self._count(state["learned"] - int(self.metrics.peek(_LEARNED, default=0)))
        if hasattr(self.learner_group._learner, _NORMS):
            getattr(self.learner_group._learner, _NORMS).update(state["norms"])


class _BC(FromEpisodes, rllib_bc.BC):
    pass


class _MARWIL(FromEpisodes, rllib_marwil.MARWIL):
    pass


class _IQL(FromEpisodes, rllib_iql.IQL):
    pass


def bc(told: BC) -> AlgorithmConfig:
    made: AlgorithmConfig = offline(rllib_bc.BCConfig, _BC, told).training(lr=told.lr)
    return made


def marwil(told: MARWIL) -> AlgorithmConfig:
    made: AlgorithmConfig = offline(rllib_marwil.MARWILConfig, _MARWIL, told).training(
        lr=told.lr,
        beta=told.weight,
        vf_coeff=told.value_weight,
    )
    return made


def iql(told: IQL) -> AlgorithmConfig:
    made = offline(rllib_iql.IQLConfig, _IQL, told)
    made.lr = None
    done: AlgorithmConfig = made.training(
        actor_lr=told.lr,
        critic_lr=told.lr,
        value_lr=told.lr,
        tau=told.average,
        target_network_update_freq=0,
        expectile=told.expectile,
        beta=told.weight,
    ).rl_module(
        model_config=network(told, fusionnet_hiddens=[told.hidden[-1]], fusionnet_activation=told.activation)
    )
    return done


def offline(config: Any, algorithm: type, told: Offline) -> Any:
    """The options that all of them share, on RLlib's configuration of one."""
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
