"""A workload's facts, and how they are remembered: a second look at the same workload imports no torch.

The counting itself is `dlsys.zoo.measure`'s. What it found is kept under a hash of all that decides it:
the code, the options, the data. Nothing is ever wrong in there, only unused.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import dlsys
from dlsys.paths import cache, write_json
from dlsys.spec.libraries import architecture
from dlsys.spec.own_code import find_source, imported
from dlsys.spec.train.job import TrainJob


@dataclass(frozen=True)
class Facts:
    """What a workload is and costs.

    Attributes:
        parameters: numbers that are trained.
        flops: floating-point operations of one row's forward pass: 2 for each multiply-add of matrix
            products, convolutions and attention, nothing for the rest.
        step_flops: of one row's part in a training step: forward and backward of all phases.
        activation_bytes: that one row's forward pass keeps for backward, in fp32; of the phase that
            keeps the most.
    """

    parameters: int
    flops: int
    step_flops: int
    activation_bytes: int


def facts(job: TrainJob, folder: Path, measure: Callable[[TrainJob, Path], Facts]) -> Facts:
    """The facts of a job's workload on a job's data: remembered ones, or else measured now.

    Args:
        job: names workload, options and source.
        folder: where its relative paths start.
        measure: counts them; imports torch.
    """
    place = cache() / "facts" / f"{key(job, folder)}.json"
    with suppress(OSError, ValueError, TypeError):
        return Facts(**json.loads(place.read_text()))
    found = measure(job, folder)
    with suppress(OSError):  # a home that cannot be written to costs only time
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(place, asdict(found))
    return found


def key(job: TrainJob, folder: Path) -> str:
    """A hash of what decides a job's facts: the code of workload and source, the options, the data."""
    card = job.card
    told = {
        "workload": card.workload if card else job.workload,
        "model": job.model,
        "data": job.data.model_dump(mode="json"),
        "files": list(_stamps(folder, getattr(job.data, "path", None))),
        "code": dict(_ours(card.workload) if card else [*_ours(""), *_theirs(job.workload)]),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", *_libraries(job))},
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def _libraries(job: TrainJob) -> Iterator[str]:
    """The library that builds the model, if one does."""
    of, card = architecture(job.workload), job.card
    library = of.library if of else card.library(card.options_of(job.model)) if card else ""
    if library:
        yield library


def _stamps(folder: Path, path: str | None) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of change of a source's file, or of its folder and what lies right in it."""
    if path is None:
        return
    root = folder / path
    with suppress(OSError):
        for place in (root, *(sorted(root.iterdir()) if root.is_dir() else ())):
            found = place.stat()
            yield str(place), found.st_size, found.st_mtime_ns


def _ours(workload: str) -> Iterator[tuple[str, str]]:
    """dlsys's own files that decide a workload's facts, each with a hash of its text."""
    root = Path(dlsys.__file__).parent
    folders = [root / "data", root / "zoo" / "tasks", root / "zoo" / "layers"]
    files = [*(root / "zoo").glob("*.py"), *(file for folder in folders for file in folder.rglob("*.py"))]
    if source := find_source(workload.partition(":")[0]) if workload else None:
        files += source.parent.glob("*.py")
    yield from ((str(file), hashlib.sha256(file.read_bytes()).hexdigest()) for file in sorted(files))


def _theirs(workload: str) -> Iterator[tuple[str, str]]:
    """The user's module and what it imports of the working folder, each with a hash of its text; of an
    installed package, its version."""
    for name, text in imported(workload.partition(":")[0]):
        if text is not None:
            yield name, hashlib.sha256(text).hexdigest()
            continue
        package = name.partition(".")[0]
        with suppress(importlib.metadata.PackageNotFoundError):
            yield package, importlib.metadata.version(package)
