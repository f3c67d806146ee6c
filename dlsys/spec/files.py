"""The files that a job names: which there are, whether they are there, and the job with their full paths."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any, Literal

from dlsys.spec.own_code import uninstalled
from dlsys.spec.rl.job import Job
from dlsys.spec.rules import Found
from dlsys.spec.section import NamesFile, Section
from dlsys.spec.train.job import TrainJob
from dlsys.spec.yaml import Path

# Which of the files that a job reads must be there: all, none, or those by relative paths.
Files = Literal["all", "relative", "none"]


def files(job: Job) -> Iterator[tuple[Path, str]]:
    """Every field that names a file or a folder to be read, by its path, with what it says."""
    yield from _files(job, ())


def _files(section: Section, above: Path) -> Iterator[tuple[Path, str]]:
    for name, field in type(section).model_fields.items():
        value, path = getattr(section, name), (*above, name)
        if any(isinstance(mark, NamesFile) for mark in field.metadata):
            if value:  # else it may be left out, and is
                yield path, value
        elif isinstance(value, Section):
            yield from _files(value, path)


def missing(job: Job, folder: FilePath, *, relative_only: bool = False) -> Found:
    """What a job reads and is not there, or is not what it says.

    Args:
        folder: where relative paths start.
        relative_only: whether all else is of another machine: other paths, and installed packages.
    """
    found = list(_absent(job, folder, relative_only))
    yield from found
    if found:
        return
    if isinstance(job, TrainJob) and not (
        relative_only and any(_is_absolute(text) for _, text in files(job))
    ):
        for option, text in job.data.unlike(folder):
            yield ("data", option), text
    if not relative_only:
        for path, target in job.code.items():
            yield from uninstalled(target, path)


def _is_absolute(text: str) -> bool:
    return FilePath(text).is_absolute()


def _absent(job: Job, folder: FilePath, relative_only: bool) -> Found:
    for path, text in files(job):
        if not (relative_only and _is_absolute(text)) and not (folder / text).exists():
            where = "" if _is_absolute(text) else f" (looked for {folder / text})"
            yield path, f"no such file: {text}{where}; a relative path starts at the job file's folder"


def placed(job: Job, folder: FilePath) -> dict[str, Any]:
    """The job as a file that can lie anywhere: its files by full paths."""
    tree = copy.deepcopy(job.model_dump(mode="json"))
    for path, text in files(job):
        inner: Any = tree
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = str((folder / text).absolute())
    return tree
