#!/usr/bin/env bash
# An error in a remote env runner's environment reaches nobody: RLlib waits a minute and starts the runner again.
#
# Versions: ray 2.60.0, torch 2.13.0 (CPU build), Python 3.11. Seen on 2026-11-30.
# Guess:    An exception in an environment's step comes back to Algorithm.train() as the error of the actor's
#           task, at once, as any exception of a Ray task does; or with restart_failed_env_runners a new runner
#           is started at once and the error is logged where the driver can see it.
# Seen:     The runner's own apply() catches it, sleeps delay_between_env_runner_restarts_s (60 by default) and
#           ends its process. The driver sees a dead actor, without the exception; with that delay set to 0,
#           train() returns all the same, without a word and with no step sampled.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ray[rllib]==2.60.0 torch==2.13.0
cat > "$folder/rllib_tells_nobody_of_an_environments_error.py" <<'PYTHON'
import logging
import os
import time

import gymnasium
from gymnasium import spaces

os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
import ray
from ray.rllib.algorithms.ppo import PPOConfig


class Raises(gymnasium.Env):
    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.Discrete(2)

    def __init__(self, config=None):
        pass

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}

    def step(self, action):
        raise KeyError("no prices for this day")


ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL)
logging.disable()
usual = PPOConfig().delay_between_env_runner_restarts_s
config = (
    PPOConfig()
    .environment(Raises)
    .env_runners(num_env_runners=1, sample_timeout_s=20)
    .fault_tolerance(delay_between_env_runner_restarts_s=0)
    .training(train_batch_size_per_learner=64, minibatch_size=64)
)
algorithm = config.build_algo()
began, said = time.monotonic(), "returned"
try:
    result = algorithm.train()
except Exception as error:
    said = repr(error)
print("seconds that a runner waits by default before it ends:", usual)
print("train():", said)
print("was the environment's error told:", "no prices" in said)
sampled = result.get("env_runners", {}).get("num_env_steps_sampled_lifetime", 0) if said == "returned" else None
print("steps sampled:", sampled)
assert usual == 60.0
assert "no prices" not in said
ray.shutdown()
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/rllib_tells_nobody_of_an_environments_error.py"
