#!/usr/bin/env bash
# RLlib's IQL regresses on the expectile that its temperature says, not on its expectile.
#
# Versions: ray 2.60.0, gymnasium (as ray wants it), torch 2.13.0 (CPU build), Python 3.11. Seen on 2026-11-30.
# Guess:    IQLConfig().training(expectile=0.9, beta=0.1): the value function goes to the 0.9 expectile of the
#           recorded actions' values, and advantages are weighted by exp(0.1 A).
# Seen:     the learner's expectile of each module is 0.1, the value of beta: both are filled from it when a module
#           is added, which every module is. The value function goes below the mean instead of near the best, and a
#           beta above 1 makes weights negative. Nothing is said.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ray[rllib]==2.60.0 torch==2.13.0
cat > "$folder/expectile.py" <<'PYTHON'
import logging
import os
import warnings

warnings.simplefilter("ignore")
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
import gymnasium
from ray.rllib.algorithms.iql import IQLConfig

logging.disable(logging.WARNING)
env = gymnasium.make("Pendulum-v1")
config = IQLConfig().environment("Pendulum-v1").training(expectile=0.9, beta=0.1)
learner = config.build_learner(env=env)
(found,) = [float(value) for value in learner.expectile.values()]
print(f"asked for 0.9, and got {found:.1f}; beta is {config.beta}")
assert abs(found - 0.1) < 1e-6, "otherwise now"
PYTHON
"$folder/venv/bin/python" "$folder/expectile.py" 2>&1 | grep "asked for"
