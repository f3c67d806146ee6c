"""Distributed training on Ray from one file, tracked in MLflow."""

from typing import Any

__version__ = "0.1.0"

# What Python programs use of dlsys; `import dlsys` itself loads none of it. `__init__.pyi` says the same to
# type checkers and editors.
_OFFERED = {
    "Run": "dlsys.api.runs:Run",
    "Sweep": "dlsys.api.sweep:Sweep",
    "find": "dlsys.api.runs:find",
    "load_model": "dlsys.api.model:load_model",
    "resume": "dlsys.api.run:resume",
    "run": "dlsys.api.run:run",
    "runs": "dlsys.api.runs:runs",
    "sweep": "dlsys.api.sweep:sweep",
}


def __getattr__(name: str) -> Any:
    if name not in _OFFERED:
        raise AttributeError(f"module 'dlsys' has no attribute {name!r}")
    from dlsys.registry import import_string

    globals()[name] = found = import_string(_OFFERED[name])
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_OFFERED})
