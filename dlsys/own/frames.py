"""Which frames of a traceback are the user's own."""

from __future__ import annotations

import importlib
import os
import pickle
import sysconfig
import traceback

import torch

import dlsys

# Where code lies that is not the user's. Most of importlib is frozen and has no file; gymnasium's wrappers
# stand around an environment, and take long to import.
_NOT_USERS = (
    *(package.__path__[0] + os.sep for package in (dlsys, torch, importlib)),
    os.path.join(sysconfig.get_paths()["purelib"], "gymnasium") + os.sep,
    "<frozen importlib",
)
_INSTALLED = tuple(sysconfig.get_paths()[kind] + os.sep for kind in ("stdlib", "purelib", "platlib"))
# Where an error from another process has what its traceback said of the user's code.
_CARRIED = "_dlsys_user_traceback"


def picklable(error: Exception, where: str) -> Exception:
    """The error, or a plain one of its text, as another process can raise it.

    Pickling loses tracebacks: what `user_traceback` says of this one is kept, and all of it is a note.

    Args:
        where: the process, as the note says it.
    """
    note, own = f"{where}:\n{''.join(traceback.format_exception(error))}", user_traceback(error)
    for sent in (error, RuntimeError(f"{type(error).__name__}: {error}")):
        sent.add_note(note)
        setattr(sent, _CARRIED, own)
        try:
            pickle.loads(pickle.dumps(sent))
        except Exception:  # whatever its class does
            continue
        break
    return sent


def user_traceback(error: BaseException) -> str:
    """An exception's traceback, with those it came from, reduced to the user's own frames.

    Frames of dlsys, torch and importlib are left out. Empty when the error did not pass through
    a user's code at all: a frame outside of installed packages and of the standard library.
    """
    if hasattr(error, _CARRIED):
        return str(getattr(error, _CARRIED))
    places = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        places.append(error.filename)  # the file was read, but none of it ran
    if all(place.startswith((*_NOT_USERS, *_INSTALLED)) for place in places):
        return ""
    formatted = traceback.TracebackException.from_exception(error)
    waiting = [formatted]
    while waiting:
        part = waiting.pop()
        part.stack = traceback.StackSummary.from_list(
            [frame for frame in part.stack if not frame.filename.startswith(_NOT_USERS)]
        )
        waiting += [cause for cause in (part.__cause__, part.__context__) if cause is not None]
    return "".join(formatted.format())
