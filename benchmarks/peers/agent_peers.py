"""PPO or DQN on CartPole by RLlib as it comes, by Stable-Baselines3 or by dlsys, as a job file says.

    python agent_peers.py rllib|sb3|dlsys JOB STEPS [KEY=VALUE ...]

Prints `{"rate": steps/s, "seconds_to_target": s or null, "return": r}`: the rate without the start, and the
seconds of training until the mean return of the last 20 training episodes was 475 or more.
"""

from __future__ import annotations

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
    """The same configuration with RLlib's own env runner, memory, learner and loop."""
    from ray.rllib.algorithms import dqn
    from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec
    from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
    from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME

    from dlsys.rl.environments import make
    from dlsys.rl.rllib import configure

    start_ray(1)
    seen = make(job.environment).observation_space
    config: Any = configure(job, seen).env_runners(env_runner_cls=SingleAgentEnvRunner)
    if job.algorithm.name == "dqn":
        theirs = dqn.DQNConfig()
        config.algo_class = theirs.algo_class
        config.learners(learner_class=theirs.get_default_learner_class())
        config.rl_module(rl_module_spec=RLModuleSpec(module_class=DefaultDQNTorchRLModule))
        memory = {"type": "EpisodeReplayBuffer", "capacity": job.algorithm.capacity}
        config.training(n_step=job.algorithm.n_step, replay_buffer_config=memory)
    else:
        config.learners(learner_class=config.get_default_learner_class())
    algorithm = config.build_algo()

    def iterate() -> tuple[int, list[float]]:
        result = algorithm.train()
        lifetime = int(algorithm.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME)))
        told = result[ENV_RUNNER_RESULTS].get("dlsys_returns", [])
        return lifetime, list(told) if hasattr(told, "__iter__") else [told]

    before, _ = iterate()
    watch, more = Watch(steps), True
    while more:
        now, returns = iterate()
        more = watch.add(now - before, returns)
        before = now
    watch.tell()
    algorithm.stop()


def sb3(job: Any, steps: int) -> None:
    from stable_baselines3 import DQN, PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    told, envs = job.algorithm, job.resources.envs
    env = make_vec_env(job.environment.name, envs, seed=job.seed)
    net = {
        "net_arch": list(told.hidden),
        "activation_fn": getattr(torch.nn, {"tanh": "Tanh", "relu": "ReLU"}[told.activation]),
    }
    if told.name == "ppo":
        model: Any = PPO(
            "MlpPolicy",
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
