"""Steps of no environment, and networks that learn from them, without one."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from rl_models import job

from dlsys.rl.actions import Actions
from dlsys.rl.algorithms.sac import SoftActorCritic, SoftPolicy
from dlsys.rl.critics import Steps
from dlsys.rl.observations import Observations
from dlsys.spec.rl.section import Deep

NUMBERS = spaces.Box(-1, 1, (3,))


def made_up(seen: spaces.Space[Any], actions: spaces.Space[Any], count: int = 32, seed: int = 0) -> Steps:
    """Random ones; some end, and the weights differ."""
    random, form = torch.Generator().manual_seed(seed), Actions(actions)

    def shown() -> dict[str, torch.Tensor]:
        shapes = Observations(seen).shapes
        return {name: torch.rand(count, *shape, generator=random) * 2 - 1 for name, shape in shapes.items()}

    if form.single:
        chosen = torch.randint(form.counts[0], (count,), generator=random)
    else:
        chosen = torch.rand(count, form.numbers, generator=random) * 2 - 1
    return Steps(
        seen=shown(),
        actions=chosen,
        rewards=torch.randn(count, generator=random),
        going=0.9 * (torch.rand(count, generator=random) > 0.2).float(),
        following=shown(),
        weights=torch.rand(count, generator=random),
    )


def soft(
    seen: spaces.Space[Any], actions: spaces.Space[Any], average: float = 0.1, **options: Any
) -> SoftActorCritic:
    """A soft actor-critic with small networks."""
    torch.manual_seed(0)
    own = {name: options.pop(name) for name in ("twin", "temperature", "entropy") if name in options}
    told = job({"name": "sac", "hidden": [16, 16], **options})
    assert isinstance(told.algorithm, Deep)
    policy = SoftPolicy(Observations(seen), Actions(actions), told)
    return SoftActorCritic(policy, Actions(actions), told.algorithm, average=average, **own)
