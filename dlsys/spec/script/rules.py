"""Rules between the sections of a `kind: script` job, and what its command names and is not there."""

from __future__ import annotations

from pathlib import Path as FilePath

from dlsys.spec.rules import Found, Rules, experiment_is_plain
from dlsys.spec.script.job import ScriptJob
from dlsys.spec.section import show

# What dlsys tells the processes itself, and the field that decides it where there is one.
TOLD = {
    "RANK": "",
    "LOCAL_RANK": "",
    "WORLD_SIZE": "resources.workers",
    "LOCAL_WORLD_SIZE": "resources.workers",
    "GROUP_RANK": "",
    "GROUP_WORLD_SIZE": "",
    "ROLE_RANK": "",
    "ROLE_WORLD_SIZE": "resources.workers",
    "MASTER_ADDR": "",
    "MASTER_PORT": "",
    "MLFLOW_TRACKING_URI": "tracking.uri",
    "MLFLOW_EXPERIMENT_NAME": "tracking.experiment",
    "MLFLOW_EXPERIMENT_ID": "tracking.experiment",
    "MLFLOW_RUN_ID": "",
    "DLSYS_RUN_ID": "",
    "DLSYS_CHECKPOINTS": "",
}

_RULES: Rules[ScriptJob] = Rules()


check = _RULES.check


@_RULES.on("tracking")
def _experiment_is_plain(job: ScriptJob) -> Found:
    yield from experiment_is_plain(job.tracking)


@_RULES.on("command")
def _program_is_a_word(job: ScriptJob) -> Found:
    program, *rest = job.command
    if not program.strip():
        yield ("command", 0), f"must name a program, got {show(program)}"
    elif not rest and len(program.split()) > 1:
        yield (
            ("command",),
            f"{show(program)} is one word, and would be looked for as a program of that name: "
            "write a list of words, and no quotes around all of them on the command line",
        )


@_RULES.on("env")
def _variables_are_the_jobs_own(job: ScriptJob) -> Found:
    for name in job.env:
        if name in TOLD:
            mend = f"say {TOLD[name]}" if TOLD[name] else "leave it out"
            yield ("env", name), f"dlsys sets it itself: {mend}"
        elif not name.isidentifier():
            yield ("env", name), "is no variable's name: letters, digits and _, no digit first"


def script(job: ScriptJob) -> tuple[int, str] | None:
    """The file that the command is about, with its place among the words; None where it names none."""
    program, *rest = job.command
    if FilePath(program).name.startswith("python"):
        where = next((i for i, word in enumerate(rest, 1) if not word.startswith("-")), 0)
        if "-c" in rest or "-m" in rest or not where or not job.command[where].endswith(".py"):
            return None
        return where, job.command[where]
    return (0, program) if "/" in program else None


def missing(job: ScriptJob, folder: FilePath, *, relative_only: bool = False) -> Found:
    """What the command names and is not there.

    Args:
        folder: where it is run.
        relative_only: whether full paths are of another machine.
    """
    if (found := script(job)) is None:
        return
    where, named = found
    full = FilePath(named).is_absolute()
    if not (full and relative_only) and not (folder / named).exists():
        looked = "" if full else f" in {folder}, where the command is run"
        yield ("command", where), f"no such file: {named}{looked}"
