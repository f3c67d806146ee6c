"""PPO or DQN on CartPole by RLlib as it comes, by Stable-Baselines3 or by dlsys, as a job file says.

    python agent_peers.py rllib|sb3|dlsys JOB STEPS [KEY=VALUE ...]

Prints `{"rate": steps/s, "seconds_to_target": s or null, "return": r}`: the rate without the start, and the
seconds of training until the mean return of the last 20 training episodes was 475 or more.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
import time
import warnings
from collections import deque
from typing import Any

import torch

TARGET, WINDOW = 475.0, 20


class Watch:
    """Counts steps and looks for the target."""

    def __init__(self, steps: int) -> None:
        self._steps, self._returns = steps, deque[float](maxlen=WINDOW)
        self._began = time.perf_counter()
        self.done, self.reached = 0, None

    def add(self, steps: int, returns: list[float]) -> bool:
        """Returns whether there is more to do."""
        self.done += steps
        self._returns.extend(returns)
        full = len(self._returns) == WINDOW and sum(self._returns) / WINDOW >= TARGET
        if full and self.reached is None:
            self.reached = time.perf_counter() - self._began
        return self.done < self._steps

    def tell(self) -> None:
        seconds = time.perf_counter() - self._began
        mean = sum(self._returns) / max(1, len(self._returns))
        found = {"rate": self.done / seconds, "seconds_to_target": self.reached, "return": mean}
        print(json.dumps(found))


def start_ray(cpus: int) -> None:
    import ray

    ray.init(
        address="local",
        num_cpus=cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def dlsys(job: Any, steps: int) -> None:
    from dlsys.rl.engine import build

    if job.needs_ray:
        start_ray(max(1, job.resources.env_runners))
    agent = build(job)
    agent.iterate()
    watch, more = Watch(steps), True
    while more:
        did = agent.iterate()
        more = watch.add(did.steps, did.returns)
    watch.tell()
    agent.close()


def rllib(job: Any, steps: int) -> None:
    """RLlib's own algorithm with the same settings."""
    from ray.rllib.algorithms.dqn import DQNConfig
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
    from ray.rllib.utils.metrics import (
        ENV_RUNNER_RESULTS,
        EPISODE_RETURN_MEAN,
        NUM_ENV_STEPS_SAMPLED_LIFETIME,
    )

    start_ray(1)
    told = job.algorithm
    shared = {
        "lr": told.lr,
        "gamma": told.gamma,
        "train_batch_size_per_learner": told.batch_size,
        "grad_clip": told.clip_norm,
        "grad_clip_by": "global_norm",
    }
    if told.name == "ppo":
        config: Any = PPOConfig().training(
            **shared,
            minibatch_size=told.minibatch_size,
            num_epochs=told.passes,
            lambda_=told.trace,
            clip_param=told.clip,
            vf_clip_param=float("inf"),
            vf_loss_coeff=told.value_weight,
            entropy_coeff=told.entropy,
            use_kl_loss=False,
        )
    else:
        config = DQNConfig().training(
            **shared,
            n_step=told.n_step,
            double_q=False,
            dueling=False,
            epsilon=[(0, 1.0), (told.epsilon_steps, told.epsilon)],
            replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": told.capacity},
            num_steps_sampled_before_learning_starts=told.starts,
            training_intensity=told.updates * told.batch_size,
            target_network_update_freq=told.target_every,
        )
        config.env_runners(rollout_fragment_length=told.fragment)
        config.reporting(min_sample_timesteps_per_iteration=1000)
    network = DefaultModelConfig(
        fcnet_hiddens=list(told.hidden),
        fcnet_activation=told.activation,
        head_fcnet_hiddens=[],
        vf_share_layers=False,
    )
    algorithm = (
        config.environment(job.environment.name)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=job.resources.envs)
        .learners(num_learners=0)
        .rl_module(model_config=network)
        .reporting(min_time_s_per_iteration=0, metrics_num_episodes_for_smoothing=WINDOW)
        .debugging(seed=job.seed, log_level="ERROR")
        .build_algo()
    )

    def iterate() -> tuple[int, float]:
        result = algorithm.train()[ENV_RUNNER_RESULTS]
        lifetime = int(algorithm.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME)))
        return lifetime, float(result.get(EPISODE_RETURN_MEAN, 0.0))

    before, _ = iterate()
    watch, more = Watch(steps), True
    while more:
        now, mean = iterate()
        more = watch.add(now - before, [mean] * WINDOW)  # of as many episodes
        before = now
    watch.tell()
    algorithm.stop()


def made(name: str) -> Any:
    """What Stable-Baselines3 makes environments of: a registered name, or a class."""
    if ":" not in name:
        return name
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def sb3(job: Any, steps: int) -> None:
    from stable_baselines3 import DQN, PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    told, envs = job.algorithm, job.resources.envs
    env = make_vec_env(made(job.environment.name), envs, seed=job.seed)
    images = told.name == "ppo" and job.environment.name.endswith(":Pixels")
    net: dict[str, Any] = {
        "net_arch": list(told.hidden),
        "activation_fn": getattr(torch.nn, {"tanh": "Tanh", "relu": "ReLU"}[told.activation]),
    }
    if told.name == "ppo":
        model: Any = PPO(
            "CnnPolicy" if images else "MlpPolicy",
            env,
            learning_rate=told.lr,
            n_steps=told.batch_size // envs,
            batch_size=told.minibatch_size,
            n_epochs=told.passes,
            gamma=told.gamma,
            gae_lambda=told.trace,
            clip_range=told.clip,
            ent_coef=told.entropy,
            vf_coef=told.value_weight,
            max_grad_norm=told.clip_norm,
            policy_kwargs=net,
            seed=job.seed,
            device="cpu",
        )
    else:
        model = DQN(
            "MlpPolicy",
            env,
            learning_rate=told.lr,
            buffer_size=told.capacity,
            learning_starts=told.starts,
            batch_size=told.batch_size,
            gamma=told.gamma,
            n_steps=told.n_step,
            train_freq=told.fragment,
            gradient_steps=round(told.updates * told.fragment * envs),
            target_update_interval=told.target_every,
            exploration_fraction=told.epsilon_steps / steps,
            exploration_final_eps=told.epsilon,
            max_grad_norm=told.clip_norm,
            policy_kwargs=net,
            seed=job.seed,
            device="cpu",
        )

    class Look(BaseCallback):
        watch: Watch

        def _on_training_start(self) -> None:
            self.watch = Watch(steps)

        def _on_step(self) -> bool:
            ended = [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
            self.watch.add(envs, ended)
            return True

    look = Look()
    model.learn(steps, callback=look)
    look.watch.tell()


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    from dlsys.spec.load import load

    way, path, steps, *overrides = sys.argv[1:]
    job = load(path, overrides).job
    {"dlsys": dlsys, "rllib": rllib, "sb3": sb3}[way](job, int(steps))


if __name__ == "__main__":
    main()
