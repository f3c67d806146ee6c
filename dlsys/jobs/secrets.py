"""Secrets of a job: environment variables that are in no record of it, in nothing of Ray's, in no log.

They travel with the submission, lie in a file that only its owner can read while the job has not ended,
and are read by the job's processes when they start. The file is what a shell calls variables: `NAME=value`.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from dlsys.errors import UsageError


def of_environment(names: Iterable[str]) -> dict[str, str]:
    """The values of these variables, here and now.

    Raises:
        UsageError: one is no variable's name, or not set.
    """
    found = {}
    for name in names:
        if not name.isidentifier():
            raise UsageError(f"--secret {name!r}: say the name of a variable, without its value")
        if name not in os.environ:
            raise UsageError(f"--secret {name}: is not set here", hint=f"Set it first: export {name}=…")
        found[name] = os.environ[name]
    return found


def keep(path: Path, values: Mapping[str, str]) -> None:
    """Writes a job's secrets down until it ends."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(handle, "w", encoding="utf-8") as file:
        file.writelines(f"{name}={shlex.quote(value)}\n" for name, value in values.items())


def read(path: Path) -> dict[str, str]:
    """A job's secrets, if it has some."""
    if not path.exists():
        return {}
    words = (word.partition("=") for word in shlex.split(path.read_text(encoding="utf-8")))
    return {name: value for name, _, value in words}


def enter(path: Path) -> None:
    """Takes a job's secrets, if it has some, into this process's environment."""
    os.environ.update(read(path))


def entered(path: Path) -> str:
    """What a shell does to take them into its environment."""
    return f"set -a; . {shlex.quote(str(path))}; set +a; "
