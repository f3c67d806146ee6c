#!/usr/bin/env bash
# RLlib sends 0 to n - 1 to an environment whose discrete actions start elsewhere.
#
# Versions: ray 2.60.0, gymnasium (as ray wants it), torch 2.13.0 (CPU build), Python 3.11. Seen on 2026-11-30.
# Guess:    Discrete(3, start=-1) takes -1, 0 and 1: an env runner that knows the space adds its start to the
#           policy's index, or refuses the space.
# Seen:     The environment gets the bare index: 0, 1 and 2 while training, of which 2 is no action of its own
#           and -1 never comes. Nothing is said; an environment that does not check learns from wrong actions.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ray[rllib]==2.60.0 torch==2.13.0
cat > "$folder/rllib_forgets_where_actions_start.py" <<'PYTHON'
import logging
import os

import gymnasium
from gymnasium import spaces

os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

GIVEN = set()


class Trade(gymnasium.Env):
    observation_space = spaces.Box(-1, 1, (1,))
    action_space = spaces.Discrete(3, start=-1)

    def __init__(self, config=None):
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        GIVEN.add(int(action))
        self.steps += 1
        return self.observation_space.sample(), 0.0, False, self.steps == 20, {}


logging.disable()
runner = SingleAgentEnvRunner(config=PPOConfig().environment(Trade).env_runners(num_env_runners=0), worker_index=0)
runner.sample(num_timesteps=200, explore=True)
print("what the space takes:", sorted(range(-1, 2)))
print("what the environment got:", sorted(GIVEN))
assert GIVEN == {0, 1, 2}, GIVEN
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/rllib_forgets_where_actions_start.py"
