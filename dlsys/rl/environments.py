"""A job's environments, wherever they are stepped."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from dlsys.errors import DlsysError, UsageError, WorkloadError
from dlsys.spec.rl import environments as spec
from dlsys.spec.rl.job import Environment
from dlsys.spec.rl.section import AlgorithmSection
from dlsys.zoo.frames import user_traceback


def make(told: Environment, *, flat: bool = True, render: bool = False) -> spec.Env:
    """As `dlsys.spec.rl.environments.make`, in a process that runs the user's code too.

    Raises:
        UsageError: there is no such environment or wrapper, or it does not take its options.
        WorkloadError: the user's own code raised.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return spec.make(told, flat=flat, render=render)
    except DlsysError:
        raise
    except Exception as error:
        if own := user_traceback(error):
            raise WorkloadError(
                f"your environment raised {type(error).__name__}: {error}", traceback=own
            ) from error
        raise UsageError(f"environment: {told.name} cannot be made: {error}") from error


class Made:
    """`make` as RLlib wants it: a class that is called with its context, in whichever process."""

    def __new__(cls, context: Mapping[str, Any]) -> Any:
        return make(Environment.model_validate(context["told"]))

    @staticmethod
    def context(told: Environment) -> dict[str, Any]:
        """What RLlib is to call it with."""
        return {"told": told.model_dump(mode="json")}


def check_suits(algorithm: AlgorithmSection, told: Environment) -> None:
    """Raises UsageError when an algorithm cannot learn in an environment."""
    for path, text in spec.unsuited(algorithm, make(told, flat=False), told.name):
        raise UsageError(f"{'.'.join(map(str, path))}: {text}")
