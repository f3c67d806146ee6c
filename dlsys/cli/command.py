"""A command after `--`, as `run` and `submit` take it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dlsys.errors import UsageError

if TYPE_CHECKING:
    from dlsys.spec.script.load import LoadedScript


def split(words: list[str], verb: str) -> tuple[list[str], list[str] | None]:
    """What stands before `--`, and the command behind it; None without one."""
    if "--" not in sys.argv:
        return words, None
    command = sys.argv[sys.argv.index("--") + 1 :]
    if not command or words[-len(command) :] != command:
        raise UsageError("--: no command follows", hint=f"For example: dlsys {verb} -- python train.py")
    return words[: -len(command)], command


def of_commands_alone(said: dict[str, object]) -> None:
    """Refuses options that a file says itself.

    Raises:
        UsageError: one of them was given.
    """
    if useless := [key for key, value in said.items() if value is not None]:
        raise UsageError(
            f"{useless[0]}: is for a command after `--`",
            hint="A file says it itself; change it for this run: resources.workers=2",
        )


def overrides(words: list[str], hint: str) -> list[str]:
    """Words that must all be overrides.

    Raises:
        UsageError: one is none.
    """
    if wrong := [text for text in words if "=" not in text]:
        raise UsageError(f"{wrong[0]}: is no override (key=value)", hint=hint)
    return words


def of_options(
    workers: int | None, experiment: str | None, cpus: float | None = None, gpus: float | None = None
) -> list[str]:
    """What options say, as overrides."""
    from dlsys.spec.overrides import as_given

    said = {
        "resources.workers": workers,
        "resources.cpus": cpus,
        "resources.gpus": gpus,
        "tracking.experiment": experiment,
    }
    return [*as_given({key: value for key, value in said.items() if value is not None})]


def load(
    verb: str,
    before: list[str],
    command: list[str],
    name: str | None,
    options: list[str],
    packed: Path | None = None,
) -> LoadedScript:
    """The job that a command line says.

    Args:
        before: what stands before `--`.
        options: what options say, as overrides.
        packed: the folder that goes to another machine, which has what is named by its full path; None is
            here.
    """
    from dlsys.spec.script.load import of_command

    given = overrides(
        before, f"Before `--` stand overrides alone: dlsys {verb} failure.retries=2 -- python train.py"
    )
    folder = packed or Path.cwd()
    return of_command(command, name, [*options, *given], folder, relative_only=packed is not None)
