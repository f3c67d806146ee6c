"""A run's checkpoints: those that rank 0's node has finished go to the store, and on to the next.

In the store, too, the manifest is what makes a checkpoint: it is sent last and removed first.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from dlsys.jobs.mirror.files import Files
from dlsys.jobs.mirror.journal import Journal, folder_of
from dlsys.jobs.mirror.objects import Objects
from dlsys.paths import RunPaths

_MANIFEST = "manifest.json"


class Checkpoints:
    """The checkpoints of one run, and of its trials, on this node.

    Args:
        paths: the run, or the sweep with all its trials.
        objects: the store.
        files: what was recorded up to a checkpoint must be in the store before it.
    """

    def __init__(self, paths: RunPaths, objects: Objects, files: Files) -> None:
        self._paths = paths
        self._objects = objects
        self._files = files
        self._journal = Journal(folder_of(paths) / "checkpoints.json")

    def push(self) -> None:
        """Sends what is new here, and removes from the store what was pruned here since.

        Raises:
            StoreError: the store does not take it; what was sent before is remembered.
        """
        with self._journal.open() as known:
            for run in self._runs():
                self._push(run, known)

    def pull(self, run: RunPaths) -> None:
        """Fetches what this node lacks: it is where rank 0 goes on.

        Args:
            run: the run, or one of its trials.

        Raises:
            StoreError: the store does not answer.
        """
        with self._journal.open() as known:
            place, told = self._place(run), _of(known, self._place(run))
            there = self._objects.files(place, deep=True)
            for name in sorted({path.removeprefix(f"{place}/").partition("/")[0] for path in there}):
                target = run.checkpoints / name
                if f"{place}/{name}/{_MANIFEST}" in there:
                    self._fetch(f"{place}/{name}", target)
                    told["sent"][name] = _stamp(target)
            if f"{place}/best" in there:
                told["best"] = self._objects.read(f"{place}/best").decode()
                (run.checkpoints / "best").write_text(told["best"])

    def replace(self, run: RunPaths) -> None:
        """Makes the store's checkpoints of a run those that are here, also where they are older.

        Raises:
            StoreError: the store does not take it.
        """
        with self._journal.open() as known:
            place, told = self._place(run), _of(known, self._place(run))
            for name in self._objects.folders(place):
                if _stamp(run.checkpoints / name) is None:
                    self._remove(f"{place}/{name}")
                    told["sent"].pop(name, None)
            self._push(run, known)

    def _runs(self) -> Iterator[RunPaths]:
        yield self._paths
        if self._paths.trials.is_dir():
            yield from map(RunPaths, sorted(self._paths.trials.iterdir()))

    def _place(self, run: RunPaths) -> str:
        inside = "" if run.root == self._paths.root else f"/trials/{run.id}"
        return f"runs/{self._paths.id}{inside}/checkpoints"

    def _push(self, run: RunPaths, known: dict[str, Any]) -> None:
        here = {path.name: stamp for path in _finished(run) if (stamp := _stamp(path))}
        if not here:
            return
        place, told = self._place(run), _of(known, self._place(run))
        new = [name for name in here if told["sent"].get(name) != here[name]]
        if new:
            self._files.push(all=True)
            newest = max(self._objects.folders(place), default="")
            for name in new:
                # An older one than another node has sent since: this one's work was given to that.
                if name < newest or self._send(run.checkpoints / name, f"{place}/{name}"):
                    told["sent"][name] = here[name]
                    self._journal.save()
                else:
                    del here[name]
            told["mine"] = True
        if not told["mine"]:
            return
        with suppress(FileNotFoundError):
            best = (run.checkpoints / "best").read_text()
            if best in here and told["best"] != best:
                self._objects.write(f"{place}/best", best.encode())
                told["best"] = best
        if here and told["kept"] != sorted(here):
            for name in self._objects.folders(place):
                if name < max(here) and name not in here:
                    self._remove(f"{place}/{name}")
                    told["sent"].pop(name, None)
            told["kept"] = sorted(here)

    def _send(self, source: Path, place: str) -> bool:
        """Whether all of it was there until the end: it may be pruned, or replaced, meanwhile."""
        self._objects.delete(f"{place}/{_MANIFEST}")
        try:
            manifest = (source / _MANIFEST).read_bytes()
            for name in json.loads(manifest)["files"]:
                self._objects.upload(source / name, f"{place}/{name}")
            if (source / _MANIFEST).read_bytes() != manifest:
                return False
        except FileNotFoundError:
            return False
        self._objects.write(f"{place}/{_MANIFEST}", manifest)
        return True

    def _fetch(self, place: str, target: Path) -> None:
        """Brings a checkpoint, damaged or not: whoever reads it holds it against its manifest."""
        manifest = self._objects.read(f"{place}/{_MANIFEST}")
        with suppress(OSError):
            if (target / _MANIFEST).read_bytes() == manifest:
                return
        beside = target.with_name(f".writing-{target.name}-{os.getpid()}")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(mode=0o700)
        try:
            for path in self._objects.files(place, deep=False):
                self._objects.download(path, beside / os.path.basename(path))
            shutil.rmtree(target, ignore_errors=True)
            os.rename(beside, target)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _remove(self, place: str) -> None:
        self._objects.delete(f"{place}/{_MANIFEST}")
        self._objects.delete_folder(place)


def _of(known: dict[str, Any], place: str) -> dict[str, Any]:
    """What is known of one run: the stamps of checkpoints that the store has, its best one, whether this
    node has sent any, and what it had when the store was last pruned for it."""
    empty = {"sent": {}, "best": "", "mine": False, "kept": []}
    return known.setdefault(place, empty)  # type: ignore[no-any-return]


def _finished(run: RunPaths) -> list[Path]:
    """The checkpoints that are whole, oldest first."""
    return sorted(path for path in run.checkpoints.glob("step-*") if not path.is_symlink())


def _stamp(path: Path) -> list[int] | None:
    """What tells a checkpoint from another of the same step; None where there is none."""
    try:
        found = (path / _MANIFEST).stat()
    except OSError:
        return None
    return [found.st_mtime_ns, found.st_ino]
