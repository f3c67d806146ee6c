"""A job from two words, an algorithm and an environment, as if it stood in a file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from dlsys.spec import yaml
from dlsys.spec.load import Loaded, check_any
from dlsys.spec.rl.algorithms import Algorithm
from dlsys.spec.rl.section import AlgorithmSection

# Where training stops if nothing else says it, and how many env runners an algorithm has that needs some.
_STOP, _RUNNERS = {"steps": 100_000}, 2


def algorithms() -> dict[str, type[AlgorithmSection]]:
    """The sections of all of them, by name."""
    kinds = get_args(get_args(Algorithm)[0])
    return {get_args(kind.model_fields["name"].annotation)[0]: kind for kind in kinds}


def of_pair(
    algorithm: str, environment: str, overrides: Sequence[str], folder: Path
) -> tuple[Loaded, dict[str, Any]]:
    """The job of an algorithm in an environment.

    Args:
        algorithm, environment: their names.
        overrides: `dotted.path=value`, as for a file.
        folder: where relative paths start.

    Returns:
        It, and what a file of it says.

    Raises:
        SpecError: all problems, also that the one cannot learn in the other.
    """
    plain: dict[str, Any] = {
        "kind": "rl",
        "name": _name(f"{algorithm}-{environment}"),
        "environment": {"name": environment},
        "algorithm": {"name": algorithm},
    }
    said = {text.partition("=")[0].strip().partition(".")[0] for text in overrides}
    if "stop" not in said:
        plain["stop"] = dict(_STOP)
    kind = algorithms().get(algorithm)
    if kind is not None and kind.ASYNCHRONOUS and "resources" not in said:
        plain["resources"] = {"env_runners": _RUNNERS}
    source = yaml.dump(plain)
    document = yaml.Document(yaml.COMMAND_LINE, plain, numbered=False)
    loaded = check_any(document, source, overrides, folder=folder)
    assert isinstance(loaded, Loaded)
    return loaded, plain


def _name(text: str) -> str:
    """A run's name of any text."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63].strip("-") or "agent"
