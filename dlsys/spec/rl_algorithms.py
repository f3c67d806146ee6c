"""`algorithm:` of `kind: rl`: one section for each. The algorithms themselves are in `dlsys.rl`."""

from __future__ import annotations

from dlsys.spec.rl_policy import PPO

Algorithm = PPO
