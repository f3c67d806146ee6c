"""Agents that learn from what they have just done, made and fed by tests in their own process."""

from __future__ import annotations

from typing import Any

import torch
from rl_models import job
from torch import Tensor

from dlsys.rl.engine import build
from dlsys.rl.on_policy import OnPolicy


def agent(
    name: str,
    environment: str = "CartPole-v1",
    envs: int = 1,
    model: dict[str, Any] | None = None,
    normalize: dict[str, Any] | None = None,
    **told: Any,
) -> Any:
    """Of an algorithm with these options."""
    more = {"resources": {"envs": envs}, "model": model or {}, "normalize": normalize or {}}
    made = build(job({"name": name, **told}, environment, **more))
    assert isinstance(made, OnPolicy)
    return made


def copied(parameters: Any) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters]


def same(before: list[Tensor], now: Any) -> bool:
    return all(torch.equal(one, other) for one, other in zip(before, now, strict=True))
