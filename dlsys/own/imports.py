"""Importing what a job names as `module:attribute`."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from dlsys.errors import DlsysError, WorkloadError
from dlsys.own.frames import user_traceback
from dlsys.own.operators import with_operators
from dlsys.registry import did_you_mean


def import_own(target: str, field: str) -> Any:
    """A user's own object; the working directory is searched first, as `python -m` does.

    Args:
        target: `package.module:attribute`.
        field: of the job file, which names it, for messages.

    Raises:
        WorkloadError: the module cannot be imported, or has no such attribute.
    """
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module_name, _, attribute = target.partition(":")
    try:
        # Libraries such as transformers import their parts when these are asked for.
        return with_operators(
            module_name.partition(".")[0], lambda: _found(importlib.import_module(module_name), attribute)
        )
    except DlsysError:
        raise
    except _Missing as missing:
        module, part = missing.args
        known = [name for name in vars(module) if not name.startswith("_")]
        raise WorkloadError(
            f"{field}: {module_name} ({getattr(module, '__file__', None) or 'no file'}) has no "
            f"{attribute!r}.{did_you_mean(part, known)}"
        ) from None
    except Exception as error:
        raise WorkloadError(
            f"{field}: importing {module_name} failed: {type(error).__name__}: {error}",
            traceback=user_traceback(error),
        ) from error


class _Missing(Exception):
    """A module or class has no such attribute."""


def _found(module: Any, attribute: str) -> Any:
    found = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise _Missing(found, part) from error
    return found
