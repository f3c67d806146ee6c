"""Models that are built from a configuration, as those of transformers are."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from dlsys.errors import UsageError
from dlsys.registry import known
from dlsys.spec.rows import Shape


def configured(found: Any) -> bool:
    """Whether it is a class that is built from an instance of its `config_class`."""
    return isinstance(found, type) and isinstance(getattr(found, "config_class", None), type)


def from_config(found: Any) -> Callable[..., nn.Module]:
    """A function from the configuration's options to a new model."""
    return partial(_built, found)


def _built(found: Any, **options: Any) -> nn.Module:
    model: nn.Module = found(found.config_class(**options))
    return model


def config_options(found: Any, name: str, options: Mapping[str, Any], shape: Shape) -> dict[str, Any]:
    """The configuration's options, with the sizes that the rows decide where the job does not.

    Raises:
        UsageError: the configuration does not know one; it would keep it without a word.
    """
    taken = inspect.signature(found.config_class.__init__).parameters
    names = [key for key in taken if key not in ("self", "kwargs")]
    for key in options:
        if key not in (*names, "num_labels"):
            raise UsageError(f"model.{key}: unknown key: {name} has no {key!r}.{known(key, names)}")
    sizes = {"num_labels": shape.classes, "vocab_size": len(shape.vocabulary)}
    return {**{key: size for key, size in sizes.items() if size}, **options}
