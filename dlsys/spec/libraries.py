"""Architectures of libraries that keep many, as `library/name`; `dlsys.zoo.library` builds them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple

from dlsys.registry import known

# The extra of dlsys that installs each.
LIBRARIES = {"timm": "vision", "torchvision": "vision", "transformers": "language"}


class Architecture(NamedTuple):
    """Of a library."""

    library: str
    name: str


def architecture(workload: str) -> Architecture | None:
    """What a workload's name says, if it says an architecture."""
    library, slash, name = workload.partition("/")
    return Architecture(library, name) if slash and ":" not in workload else None


def missing(library: str) -> str:
    """Why nothing of a library can be built here; empty where it can. Its names are known to itself alone."""
    if library not in LIBRARIES:
        return f"unknown library {library!r}.{known(library, LIBRARIES)}"
    if find_spec(library) is None:
        return f"needs {library}, which is not installed: pip install 'dlsys[{LIBRARIES[library]}]'"
    return ""
