"""The files that a job names: which there are, whether they are there, and the job with their full paths."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any

from dlsys.spec.rl.job import Job
from dlsys.spec.rules import Found
from dlsys.spec.section import NamesFile, Section
from dlsys.spec.yaml import Path


def files(job: Job) -> Iterator[tuple[Path, str]]:
    """Every field that names a file or a folder to be read, by its path, with what it says."""
    yield from _files(job, ())


def _files(section: Section, above: Path) -> Iterator[tuple[Path, str]]:
    for name, field in type(section).model_fields.items():
        value, path = getattr(section, name), (*above, name)
        if any(isinstance(mark, NamesFile) for mark in field.metadata):
            yield path, value
        elif isinstance(value, Section):
            yield from _files(value, path)


def missing(job: Job, folder: FilePath, *, relative_only: bool = False) -> Found:
    """What a job reads and is not there.

    Args:
        folder: where relative paths start.
        relative_only: whether others are of another machine.
    """
    for path, text in files(job):
        if not (relative_only and FilePath(text).is_absolute()) and not (folder / text).exists():
            where = "" if FilePath(text).is_absolute() else f" (looked for {folder / text})"
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
