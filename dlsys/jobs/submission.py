"""What a cluster's desk takes, of a command. Without the typed files: it is acknowledged sooner so."""

from __future__ import annotations

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


def _refuse_typing_errors(command: list[str], folder: Path) -> None:
    """Refuses what a shell would not find either, before it waits in the queue.

    Raises:
        UsageError: a whole command in quotes, or a script that is not in the folder.
    """
    program, *rest = command
    if not rest and len(program.split()) > 1 and not (folder / program).exists():
        raise UsageError(
            f"{program!r} is one word, and would be looked for as a program of that name",
            hint=f"Leave the quotes out: dlsys submit -- {program}",
        )
    script = program
    if Path(program).name.startswith("python"):
        script = next((word for word in rest if not word.startswith("-")), "")
        if "-c" in rest or "-m" in rest or not script.endswith(".py"):
            return
    elif "/" not in program:
        return
    if not Path(script).is_absolute() and not (folder / script).exists():
        raise UsageError(f"{script}: no such file in {folder.resolve()}, which is packed")


def of_command(
    command: list[str], name: str | None, workers: int, need: dict[str, float], options: Options
) -> dict[str, Any]:
    """The submission of any command: one process, or with several workers one on each.

    Raises:
        UsageError: a word looks like a secret.
    """
    for word in command:
        key, _, value = word.lstrip("-").partition("=")
        if is_secret("", word) or (value and key.replace("-", "_").isidentifier() and is_secret(key)):
            raise UsageError(
                f"the command's word {mask_settings(word)} looks like a secret; commands are written down",
                hint="Let the program read it from a variable, and send that: --secret NAME.",
            )
    _refuse_typing_errors(command, options.folder)
    return {
        **common(options),
        "id": new_id(options, name or _name_of(command)),
        "kind": "command",
        "command": command,
        "bundles": [need] * workers,
        "retries": 0,
    }


def common(options: Options) -> dict[str, Any]:
    """What a file's and a command's submission both say.

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


def _name_of(command: list[str]) -> str:
    """A command's own name: its script's, or its program's."""
    script = next((word for word in command if word.endswith((".py", ".sh"))), command[0])
    kept = "".join(
        letter if letter.isalnum() or letter in "_-" else "-" for letter in Path(script).stem.lower()
    )
    return kept.strip("-_")[:40] or "command"
