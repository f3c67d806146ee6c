"""torchvision beside a torch that its C++ operators were not built for.

The wheels of torchvision on the Python package index are built for CUDA; beside a CPU-only torch their
operators cannot be loaded, and the import fails where torchvision describes one of them. With their
schemas declared first, everything that is written in Python works, which is every model for
classification and segmentation; non-maximum suppression itself is missing then.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import TypeVar

from torch import library

_Loaded = TypeVar("_Loaded")
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_LIBRARY: list[library.Library] = []


def with_operators(package: str, load: Callable[[], _Loaded]) -> _Loaded:
    """What `load` imports, which may import torchvision: what that lacks is declared then.

    Args:
        package: what is imported, of which nothing half-imported may stay.
        load: imports it; called again where it failed for want of operators.
    """
    before = set(sys.modules)
    try:
        return load()
    except Exception as error:
        if not lacks_operators(error):
            raise
    declare_operators()
    # What of the package was imported by then would never be bound to the package itself.
    for module in set(sys.modules) - before:
        if module.partition(".")[0] == package:
            del sys.modules[module]
    return load()


def lacks_operators(error: BaseException) -> bool:
    """Whether an import failed, at whatever depth, for want of torchvision's C++ operators."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, RuntimeError) and "operator torchvision::" in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def declare_operators() -> None:
    """Declares the operators that torchvision could not load; its next import works."""
    if not _LIBRARY:
        declared = library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for schema in _SCHEMAS:
            declared.define(schema)  # type: ignore[no-untyped-call]
        _LIBRARY.append(declared)  # they are gone with it
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    importlib.invalidate_caches()
