"""What surrounds a call from another program."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from dlsys.errors import DlsysError, ExpectationError, Interrupted, UsageError, WorkloadError

_P = ParamSpec("_P")
_R = TypeVar("_R")


def visit(call: Callable[_P, _R]) -> Callable[_P, _R]:
    """Leaves the caller's environment as it was, and lets tracebacks say what there is to mend."""

    @functools.wraps(call)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        before = dict(os.environ)
        try:
            return call(*args, **kwargs)
        except DlsysError as error:
            _annotate(error)
            if isinstance(error, UsageError | ExpectationError | Interrupted):
                error.__traceback__ = None  # where dlsys found it out says nothing to whoever has to mend it
            raise
        finally:
            for name in os.environ.keys() - before.keys():
                del os.environ[name]
            for name, value in before.items():
                if os.environ.get(name) != value:
                    os.environ[name] = value

    return called


def _annotate(error: DlsysError) -> None:
    notes = [error.hint]
    if isinstance(error, WorkloadError) and error.__cause__ is None:
        notes.insert(0, error.traceback.rstrip())  # another process's, which has no frames here
    for note in notes:
        if note and note not in getattr(error, "__notes__", ()):
            error.add_note(note)
