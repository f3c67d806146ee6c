"""What a submission says besides the job itself, and what it must not say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlsys.errors import UsageError
from dlsys.jobs import secrets
from dlsys.paths import RUN_ID, new_run_id
from dlsys.track.mask import is_secret, mask_settings


@dataclass(frozen=True)
class Options:
    """What a submission says besides what is to run.

    Attributes:
        priority: higher goes first.
        job_id: the id; by default a new one. The same id again is the same job.
        pip: a file of requirements.
        env: `NAME=value` for the job's processes.
        secrets: variables of this environment that they get too, and that are written down nowhere.
        folder: the working folder to be packed.
    """

    priority: int = 0
    job_id: str | None = None
    pip: Path | None = None
    env: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    folder: Path = Path()


def refuse_secrets(command: Sequence[str]) -> None:
    """Refuses what a command's words should not hold.

    Raises:
        UsageError: one looks like a secret.
    """
    for word in command:
        key, _, value = word.lstrip("-").partition("=")
        if is_secret("", word) or (value and key.replace("-", "_").isidentifier() and is_secret(key)):
            raise UsageError(
                f"the command's word {mask_settings(word)} looks like a secret; commands are written down",
                hint="Let the program read it from a variable, and send that: --secret NAME.",
            )


def common(options: Options) -> dict[str, Any]:
    """What every submission says.

    Raises:
        UsageError: an option is wrong.
    """
    said: dict[str, Any] = {"priority": options.priority}
    if options.pip is not None:
        try:
            lines = options.pip.read_text().splitlines()
        except OSError as error:
            raise UsageError(f"--pip {options.pip}: cannot be read: {error.strerror}") from error
        said["pip"] = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    env = {}
    for text in options.env:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(f"--env {text}: say NAME=value")
        if is_secret(key, value):
            raise UsageError(
                f"--env {key}: looks like a secret, and everyone who may use the cluster could read it",
                hint=f"Set it here, and say --secret {key}.",
            )
        env[key] = value
    return said | {"env": env, "secrets": secrets.of_environment(options.secrets)}


def new_id(options: Options, name: str) -> str:
    """The job's id: the one asked for, or a new one."""
    if options.job_id is None:
        return new_run_id(name)
    if not RUN_ID.fullmatch(options.job_id):
        raise UsageError(
            f"--id {options.job_id}: an id is name-date-time-random, such as lenet5-20260101-120000-abcd"
        )
    return options.job_id
