"""`algorithm:` of `kind: rl`: one section for each. The algorithms themselves are in `dlsys.rl`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dlsys.spec.rl_models import MBPO, Genetic
from dlsys.spec.rl_offline import BC, IQL, MARWIL
from dlsys.spec.rl_policy import PPO

Algorithm = Annotated[PPO | MBPO | Genetic | BC | MARWIL | IQL, Field(discriminator="name")]
