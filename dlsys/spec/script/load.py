"""From a document, or the words of a command line, to a checked script job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from dlsys.errors import SpecError
from dlsys.spec import yaml
from dlsys.spec.files import Files
from dlsys.spec.overrides import apply_overrides
from dlsys.spec.script import rules
from dlsys.spec.script.job import ScriptJob, script_of
from dlsys.spec.sections import HARMLESS_SCRIPT, sections, told, without


@dataclass(frozen=True)
class LoadedScript:
    """A checked script job.

    Attributes:
        job: the job, all defaults filled in.
        source: the file's own text, or the one that says what the command line did.
        path: the file, absolute; the script itself, where there is no file.
        folder: where the command is run, absolute.
        overrides: what the command line changed, as given.
    """

    job: ScriptJob
    source: str
    path: Path
    folder: Path
    overrides: tuple[str, ...] = ()

    @property
    def spec(self) -> ScriptJob:
        return self.job


def check(document: yaml.Document, folder: Path | None, *, relative_only: bool = False) -> ScriptJob:
    """Validates a script job: types, unknown keys, the rules, and whether the script is there.

    Args:
        folder: where the command is run; None does not look for the script.
        relative_only: whether one with a full path is of another machine.

    Raises:
        SpecError: all problems.
    """
    job, wrong, broken = sections(document, ScriptJob)
    known = job or without(document.data, broken, ScriptJob, HARMLESS_SCRIPT)
    wrong += islice(rules.check(known, broken), yaml.MAX_PROBLEMS)
    if job is not None and folder is not None and not wrong:
        wrong += rules.missing(job, folder, relative_only=relative_only)
    if problems := told(document, wrong):
        raise SpecError(problems)
    assert job is not None, "what pydantic refuses is a problem"
    return job


def of_document(
    document: yaml.Document,
    source: str,
    overrides: Sequence[str],
    folder: Path | None,
    there: Files,
) -> LoadedScript:
    """The job of a file.

    Args:
        source: the file's own text.
        overrides: what the command line changed, as given.
        folder: where the command is run, if not where the file lies.
        there: whether the script must be there; `relative` looks for none with a full path.

    Raises:
        SpecError: all problems.
    """
    full = Path(document.file).resolve()
    folder = (folder or full.parent).absolute()
    job = check(document, None if there == "none" else folder, relative_only=there == "relative")
    return LoadedScript(job, source, full, folder, tuple(overrides))


def of_command(
    command: Sequence[str],
    name: str | None,
    overrides: Sequence[str],
    folder: Path,
    *,
    relative_only: bool = False,
) -> LoadedScript:
    """The job that a command line says: `dlsys run -- python train.py`.

    Args:
        command: its words.
        name: what the run is called; by default as its script.
        overrides: `dotted.path=value`, as for a file.
        folder: where it is run.
        relative_only: as in `check`.

    Raises:
        SpecError: all problems.
    """
    plain: dict[str, Any] = {"kind": "script", "name": name or name_of(command), "command": list(command)}
    source = yaml.dump(plain)
    document = yaml.Document(yaml.COMMAND_LINE, plain, {(): 0})
    apply_overrides(document, overrides)
    job = check(document, folder, relative_only=relative_only)
    script = (folder / script_of(job.command)).absolute()
    return LoadedScript(job, source, script, folder.absolute(), tuple(overrides))


def name_of(command: Sequence[str]) -> str:
    """What a command is called by itself: as its script, its module or its program."""
    said = script_of(tuple(command))
    stem = Path(said).stem if said.endswith((".py", ".sh")) else Path(said).name
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in stem.lower())
    return "-".join(filter(None, kept.split("-")))[:40] or "script"
