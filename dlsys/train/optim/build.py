"""From a checked `optimizer:` section to a torch optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import nn

from dlsys.spec.train.optimizer import Group, Optimizer
from dlsys.train.optim.yogi import Yogi

# The sections' fields carry torch's own argument names.
_MAKERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "gd": torch.optim.SGD,
    "sgd": torch.optim.SGD,
    "minibatch-sgd": torch.optim.SGD,
    "momentum": torch.optim.SGD,
    "nesterov": partial(torch.optim.SGD, nesterov=True),
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "adadelta": torch.optim.Adadelta,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adamax": torch.optim.Adamax,
    "nadam": torch.optim.NAdam,
    "yogi": Yogi,
}
# One kernel updates all parameters, where torch has one; a small model's step is a tenth shorter.
_FUSED = (torch.optim.SGD, torch.optim.Adagrad, torch.optim.Adam, torch.optim.AdamW)


def build(
    options: Optimizer, parameters: Iterable[nn.Parameter], names: Iterable[str] = ()
) -> torch.optim.Optimizer:
    """The optimizer of a section.

    Args:
        options: the checked section; its `lr` is the rate until a schedule writes another.
        parameters: at least one.
        names: theirs, in the same order; where there are `groups`, these go by them. The first of torch's
            groups has what no pattern matches; each has its `lr_factor`, and some may be empty.

    Raises:
        ValueError: no parameters.
    """
    parameters = list(parameters)
    maker = _MAKERS[options.name]
    fields = options.arguments
    plain = all(type(p.data) is torch.Tensor and p.is_floating_point() for p in parameters)
    if plain and getattr(maker, "func", maker) in _FUSED:
        fields["fused"] = True
    given: list[Any] = _grouped(options, parameters, names) if options.groups else parameters
    optimizer = maker(given, **fields)
    if options.name == "nadam":
        optimizer.register_load_state_dict_post_hook(_as_begun)
    return optimizer


def _grouped(
    options: Optimizer, parameters: Iterable[nn.Parameter], names: Iterable[str]
) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = [{"params": []}]
    for group in options.groups:
        own = {} if group.weight_decay is None else {"weight_decay": group.weight_decay}
        groups.append({"params": [], "lr_factor": group.lr_factor, **own})
    for name, parameter in zip(names, parameters, strict=True):
        groups[_place(name, options.groups)]["params"].append(parameter)
    return groups


def _place(name: str, groups: Sequence[Group]) -> int:
    """Which of torch's groups a parameter belongs to."""
    for place, group in enumerate(groups, 1):
        if any(fnmatchcase(name, pattern) for pattern in group.match):
            return place
    return 0


def _as_begun(optimizer: torch.optim.Optimizer) -> None:
    """NAdam begins its product of momenta in fp32; of double parameters, loading makes it double, and a
    run that resumes would round otherwise."""
    for state in optimizer.state.values():
        state["mu_product"] = state["mu_product"].float()
