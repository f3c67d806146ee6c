"""Importing what a job names as `module:attribute`."""

from __future__ import annotations

import os
import sys
from typing import Any

from dlsys.errors import DlsysError, WorkloadError
from dlsys.own.frames import user_traceback
from dlsys.own.operators import import_module
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
        module = import_module(module_name)
    except DlsysError:
        raise
    except Exception as error:
        raise WorkloadError(
            f"{field}: importing {module_name} failed: {type(error).__name__}: {error}",
            traceback=user_traceback(error),
        ) from error
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            known = [known for known in vars(found) if not known.startswith("_")]
            raise WorkloadError(
                f"{field}: {module_name} ({getattr(module, '__file__', None) or 'no file'}) has no "
                f"{attribute!r}.{did_you_mean(part, known)}"
            )
        found = getattr(found, part)
    return found
