"""A run that goes on: its folder, its job, and what is changed for it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from dlsys.errors import UsageError
from dlsys.jobs import run as runs
from dlsys.jobs.moved import folder_of
from dlsys.paths import RunPaths, home
from dlsys.spec import yaml
from dlsys.spec.files import Files
from dlsys.spec.load import Loaded, check_any, read
from dlsys.spec.overrides import as_given
from dlsys.spec.script.load import LoadedScript


def take_up(
    prefix: str,
    changes: Sequence[str] = (),
    command: Sequence[str] | None = None,
    *,
    place: str = yaml.COMMAND_LINE,
) -> tuple[RunPaths, Loaded | LoadedScript]:
    """Opens a run again; the caller executes it.

    Args:
        prefix: the beginning of its id.
        changes: overrides of its job.
        command: of a script: another one.
        place: where the changes stand, as messages say it.

    Raises:
        UsageError: no such run, several, or one that does not go on so.
        SpecError: all problems of the changes.
    """
    recall_here(prefix)
    paths = RunPaths.find(prefix)
    given = [*changes, *(as_given({"command": list(command)}) if command is not None else [])]
    # On a cluster, what has a full path is the workers' nodes' own.
    there: Files = "relative" if paths.submission.exists() else "all"
    document, source = read(str(paths.spec))
    document.changes = place
    loaded = check_any(document, source, given, folder=folder_of(paths), there=there)
    if not isinstance(loaded, Loaded | LoadedScript):
        raise UsageError(f"{paths.id}: is a sweep", hint=f"It goes on with: dlsys sweep resume {paths.id}")
    if command is not None and not isinstance(loaded, LoadedScript):
        raise UsageError(f"{paths.id}: is a job of kind: {loaded.job.kind}, and has no command to change")
    runs.reopen(paths, loaded)
    return paths, loaded


def recall_here(prefix: str) -> None:
    """Brings runs here that only the object store has, where there is one."""
    if store := os.environ.get("DLSYS_STORE"):
        from dlsys.jobs.mirror.recall import recall

        try:
            recall(store, home(), prefix)
        except OSError as error:
            raise UsageError(str(error), hint="Mend it, or unset DLSYS_STORE.") from error
