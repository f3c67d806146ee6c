"""The value-based algorithms that RLlib has: our options as its own."""

from __future__ import annotations

from typing import Any

from ray.rllib.algorithms import AlgorithmConfig

from dlsys.rl.algorithms.dqn import DQNConfig
from dlsys.rl.algorithms.off_policy import replayed
from dlsys.rl.algorithms.rllib import network
from dlsys.spec.rl_value import DQN


def dqn(told: DQN) -> AlgorithmConfig:
    config: Any = replayed(DQNConfig(), told)
    done: AlgorithmConfig = config.training(
        lr=told.lr,
        double_q=told.double,
        dueling=told.dueling,
        num_atoms=told.atoms,
        v_min=told.v_min,
        v_max=told.v_max,
        noisy=told.noisy,
        sigma0=told.noise,
        epsilon=0.0 if told.noisy else [(0, 1.0), (told.epsilon_steps, told.epsilon)],
        target_network_update_freq=told.target_every,
    ).rl_module(model_config=network(told))
    return done
