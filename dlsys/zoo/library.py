"""Architectures that timm, torchvision and transformers build, by name and with new weights."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from typing import Any

from torch import nn

from dlsys.errors import UsageError
from dlsys.own.imports import import_own
from dlsys.registry import known
from dlsys.spec.libraries import Architecture, missing
from dlsys.spec.rows import Shape
from dlsys.zoo.configured import config_options, from_config

# What lists a library's names, and what makes one of them.
_LISTS = {"timm": "timm:list_models", "torchvision": "torchvision.models:list_models"}
_MAKERS = {"timm": "timm:create_model", "torchvision": "torchvision.models:get_model"}
# They have auxiliary classifiers, if not told otherwise, whose outputs are in no loss here: they would
# stay as they begin.
_AUXILIARY = (Architecture("torchvision", "googlenet"), Architecture("torchvision", "inception_v3"))


def names(library: str) -> list[str]:
    """All that a library builds; of transformers the models with a head, which learn a task.

    Raises:
        UsageError: it is not installed, or unknown.
    """
    if wrong := missing(library):
        raise UsageError(f"library: {wrong}")
    if library in _LISTS:
        return sorted(import_own(_LISTS[library], "library")())
    every: list[str] = import_own("transformers:__all__", "library")
    return sorted(name for name in every if "For" in name and name[:4] not in ("Auto", "Flax"))


def built(
    of: Architecture, options: Mapping[str, Any], shape: Shape, place: str = "workload"
) -> tuple[Callable[..., nn.Module], dict[str, Any]]:
    """A function that makes a new model, and what it is called with.

    Args:
        of: what the job names.
        options: the job's; sizes that the rows decide are added where they are not said: those of outputs,
            and timm's channels of images; auxiliary classifiers are left out where it does not ask for them.
        shape: of the rows.
        place: in the job file, of the architecture.

    Raises:
        UsageError: the library has no such architecture, or its configuration has no such option.
    """
    every, workload = names(of.library), f"{of.library}/{of.name}"
    if of.name not in every:
        near = known(of.name, every, more=f"dlsys zoo list --library {of.library} --like {of.name}")
        raise UsageError(f"{place}: {of.library} has no architecture {of.name!r}.{near}")
    if of.library == "transformers":
        found = import_own(f"transformers:{of.name}", "workload")
        return from_config(found), config_options(found, workload, options, shape)
    sizes = {"num_classes": shape.classes or math.prod(shape.row.get("target", ()))}
    if of.library == "timm" and "image" in shape.row:
        sizes["in_chans"] = shape.row["image"][0]
    off = {"aux_logits": False} if of in _AUXILIARY else {}
    return partial(_made, import_own(_MAKERS[of.library], "workload"), of), {**sizes, **off, **options}


def _made(make: Callable[..., nn.Module], of: Architecture, **options: Any) -> nn.Module:
    try:
        with warnings.catch_warnings():
            # torchvision's of initial weights that will be others one day.
            warnings.simplefilter("ignore", FutureWarning)
            return make(of.name, **deepcopy(options))  # timm writes into some
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        told = ", ".join(f"{name}={value!r}" for name, value in options.items())
        raise UsageError(f"model: {of.library}/{of.name} cannot be built of {told}: {error}") from error
