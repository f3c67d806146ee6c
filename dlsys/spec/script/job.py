"""`kind: script` — a command that is run as it is, once for each worker. Validation is pure."""

from __future__ import annotations

import shlex
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dlsys.spec.notify import Notify
from dlsys.spec.section import Bound, Name, NonNegativeInt, Number, Section, Text
from dlsys.spec.train.job import Processes, Store


class ScriptResources(Processes):
    """How many processes run the command, and what each needs of the machine."""

    cpus: Annotated[Number, Field(gt=0, le=4096)] = 1
    """CPU cores for each worker, and with them OMP_NUM_THREADS where that is not set."""


class ScriptFailure(Section):
    """What happens when a worker fails or dies."""

    retries: NonNegativeInt = 0
    """How often all workers are started again. None by default: only you know whether the script goes on from
    what it saved in DLSYS_CHECKPOINTS, or would begin anew."""


class ScriptJob(Section):
    """One run of a script."""

    # What it computes is the script's own; a run that goes on may be given other arguments.
    FIXED: ClassVar[tuple[str, ...]] = ("kind", "name")

    kind: Literal["script"]
    """What sort of file this is."""
    name: Name
    """What the run is called; run ids start with it."""
    command: Annotated[tuple[Text, ...], Field(min_length=1)]
    """The words of the command, run in this file's folder, once for each worker: `[python, train.py]`."""
    resources: ScriptResources = Field(default_factory=ScriptResources)
    """Workers and what each of them needs."""
    failure: ScriptFailure = Field(default_factory=ScriptFailure)
    """Retries."""
    tracking: Store = Field(default_factory=Store)
    """The MLflow experiment and server, which the script is handed."""
    notify: Notify | None = None
    """Who is told when the run has ended; by default whom DLSYS_NOTIFY says."""
    env: dict[str, Text] = Field(default_factory=dict)
    """Variables for the command, besides those that it inherits: `{SEED: "1"}`."""
    expect: dict[str, Bound] = Field(default_factory=dict)
    """What the script's last figures must meet; a run that falls short ends with exit code 1."""

    @property
    def subject(self) -> dict[str, str]:
        """What the job is about, by what it is."""
        return {"script": script_of(self.command)}

    @property
    def written(self) -> str:
        """The command in a line, as a shell would take it."""
        return shlex.join(self.command)


def script_of(command: tuple[str, ...]) -> str:
    """What a command runs, in a word: its script or module, or else its program."""
    words = list(command)
    if "-m" in words[:-1]:
        return words[words.index("-m") + 1]
    return next((word for word in words if word.endswith((".py", ".sh"))), words[0])
