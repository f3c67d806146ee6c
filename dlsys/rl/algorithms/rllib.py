"""The algorithms that RLlib has: our options as its own."""

from __future__ import annotations

from typing import Any

from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from dlsys.spec.rl.section import Deep

# The side of an image that is not halved again.
_SMALL = 5


def network(told: Deep, **more: Any) -> DefaultModelConfig:
    """The networks of an algorithm's options."""
    return DefaultModelConfig(
        fcnet_hiddens=list(told.hidden),
        fcnet_activation=told.activation,
        head_fcnet_hiddens=[],
        **more,
    )


def convolutions(told: Deep, height: int, width: int) -> dict[str, Any]:
    """What networks of images have instead: convolutions that halve them until few numbers are left, and
    then the hidden layers, which are convolutions of all that is left."""
    found: list[Any] = []
    while min(height, width) > _SMALL:
        found.append([min(16 * 2 ** len(found), 64), 3, 2])
        height, width = -(-height // 2), -(-width // 2)
    first, *others = told.hidden
    found += [[first, [height, width], 1, "valid"], *([each, 1, 1, "valid"] for each in others)]
    return {"conv_filters": found, "conv_activation": told.activation}
