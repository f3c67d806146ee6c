"""A run's files, but for checkpoints: what this node wrote goes to the store, what others wrote comes here.

Every file has one node that writes it: those of a rank, the node that the rank is on; all others, the
driver's. So a file that changed here is sent, and one that changed in the store is fetched. Where both
did, this node was thought lost, and its work was given to another: that one's counts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from dlsys.jobs.mirror.journal import Journal, folder_of
from dlsys.jobs.mirror.objects import Entry, Objects
from dlsys.paths import RunPaths

# What is mirrored. Of the rest, secrets must never leave the node, and MLflow's ids and cursor belong to
# the store of figures that this node knows: another one gets all of the spool, and keeps each point once.
_FILES = {
    *("job.yaml", "spec.yaml", "trained.yaml", "record.json", "diff.patch", "ledger.jsonl"),
    *("submission.json", "rates.json", "owner.json", "outcome.json", "stop"),
}
_FOLDERS = ("spool", "logs", "stacks", "failures", "places", "artifacts")
# What tells workers whose run it is, and that it is to end.
CONTROL = ("owner.json", "stop", "rates.json")
# That these are gone says something; that others are may be a disk's loss.
_REMOVED = ("stop", "outcome.json", "rates.json")
# A file that grows is sent whole each time, since stores cannot append: at most so many bytes a second of it.
_PACE = 4e6
# Stores may know whole seconds: two versions of one file must not be from the same one.
_APART = 1.05
_AT_ONCE = 8

# Of a file: time in ns and size here, size and time in the store. A size of None is being written now; a
# time of None is that of this node's own writing.
_Known = list[Any]


class Files:
    """The files of one run on this node.

    Args:
        paths: the run, or the sweep with all its trials.
        objects: the store.
    """

    def __init__(self, paths: RunPaths, objects: Objects) -> None:
        self._paths = paths
        self._objects = objects
        self._place = f"runs/{paths.id}"
        self._journal = Journal(folder_of(paths) / "files.json")
        self._sent: dict[str, float] = {}

    def push(self, *, all: bool = False, only: Collection[str] | None = None) -> bool:
        """Sends what changed here; whether there is nothing left to send.

        Args:
            all: also what has only just been sent.
            only: paths below the run's folder; by default all.

        Raises:
            StoreError: the store does not take it; what was sent before is remembered.
        """
        with self._journal.open() as known:
            here = {path: _stat(file) for path, file in self._local(only)}
            changed = [path for path, stat in here.items() if stat and known.get(path, [])[:2] != stat]
            due = [path for path in changed if self._due(path, all)]
            there = self._entries(due)
            for path in [path for path in due if not self._is_ours(path, known.get(path), there.get(path))]:
                due.remove(path)
                self._fetch(path, there[path], known, whole=True)
            for path in due:
                known[path] = [*known.get(path, [0, 0])[:2], None, None]
            self._journal.save()  # whoever dies now finds its own writing again, and not another's
            _each(due, lambda path: self._send(path, here[path], known))
            if only is None and self._paths.spool.is_dir():
                self._remove(known, here)
        return len(due) == len(changed)

    def pull(self, *, deep: bool, only: Collection[str] | None = None) -> None:
        """Fetches what others changed.

        Args:
            deep: all of the run; else only what a worker must know.
            only: these paths instead.

        Raises:
            StoreError: the store does not answer.
        """
        with self._journal.open() as known:
            there = self._entries(only) if only is not None else self._list(deep)
            _each(
                [path for path, entry in there.items() if self._is_news(path, known.get(path), entry)],
                lambda path: self._fetch(path, there[path], known),
            )
            asked = only if only is not None else [p for p in known if deep or p in CONTROL]
            for path in [p for p in asked if p in known and p not in there]:
                stat = _stat(self._paths.root / path)
                if (
                    os.path.basename(path) in _REMOVED
                    and known[path][2] is not None
                    and stat == known[path][:2]
                ):
                    (self._paths.root / path).unlink(missing_ok=True)
                    del known[path]

    def pull_shown(self) -> None:
        """Fetches what listings show of a run: what it is, how it ended, its logs, where it was.

        Raises:
            StoreError: the store does not answer.
        """
        found = [self._objects.files(f"{self._place}{part}", deep=False) for part in ("", "/logs", "/places")]
        below = [path.removeprefix(f"{self._place}/") for each in found for path in each]
        self.pull(deep=False, only=[path for path in below if _is_mirrored(path)])

    def _local(self, only: Collection[str] | None) -> Iterator[tuple[str, Path]]:
        if only is not None:
            yield from ((path, self._paths.root / path) for path in only)
            return
        trials = sorted(self._paths.trials.iterdir()) if self._paths.trials.is_dir() else ()
        for root in (self._paths.root, *trials):
            prefix = "" if root == self._paths.root else f"trials/{root.name}/"
            yield from ((prefix + name, root / name) for name in sorted(_FILES))
            for folder in _FOLDERS:
                for place, _, names in os.walk(root / folder):
                    for name in names:
                        path = Path(place, name)
                        if not name.startswith(".") and not path.is_symlink():
                            yield f"{prefix}{path.relative_to(root)}", path

    def _list(self, deep: bool) -> dict[str, Entry]:
        found = self._objects.files(self._place, deep=deep)
        below = {path.removeprefix(f"{self._place}/"): entry for path, entry in found.items()}
        return {
            path: entry for path, entry in below.items() if (_is_mirrored(path) if deep else path in CONTROL)
        }

    def _entries(self, paths: Collection[str]) -> dict[str, Entry]:
        found = self._objects.entries([f"{self._place}/{path}" for path in paths]) if paths else {}
        return {path.removeprefix(f"{self._place}/"): entry for path, entry in found.items()}

    def _due(self, path: str, all: bool) -> bool:
        since = time.monotonic() - self._sent.get(path, float("-inf"))
        if all:
            if since < _APART:
                time.sleep(_APART - since)
            return True
        with suppress(OSError):
            return since > max(_APART, (self._paths.root / path).stat().st_size / _PACE)
        return False

    def _is_ours(self, path: str, known: _Known | None, entry: Entry | None) -> bool:
        """Whether what the store has may be replaced by what is here."""
        if entry is None:
            return True
        if known is not None:
            return known[2] is None or _same(known, entry)
        if not _grows(path):
            return True  # made here, before anything was known
        before = self._objects.read(f"{self._place}/{path}")
        with open(self._paths.root / path, "rb") as file:
            return file.read(len(before)) == before

    def _is_news(self, path: str, known: _Known | None, entry: Entry) -> bool:
        exists = (self._paths.root / path).exists()
        if known is None:
            return not exists  # else whose it is, is found out when it is sent
        if known[2] is None:
            return False
        if not exists:
            return os.path.basename(path) not in _REMOVED  # else its end is told with the next push
        if _same(known, entry):
            known[3] = entry.time
            return False
        return True

    def _send(self, path: str, stat: list[int] | None, known: dict[str, _Known]) -> None:
        try:
            data = (self._paths.root / path).read_bytes()
        except FileNotFoundError:
            known.pop(path)
            return
        if path.endswith(".jsonl"):
            data = data[: data.rfind(b"\n") + 1]  # a torn line would be cut off here, and stay there
        self._objects.write(f"{self._place}/{path}", data)
        self._sent[path] = time.monotonic()
        known[path] = [*(stat or [0, 0]), len(data), None]

    def _fetch(self, path: str, entry: Entry, known: dict[str, _Known], *, whole: bool = False) -> None:
        target = self._paths.root / path
        before, stat = known.get(path), _stat(target)
        grown = _grows(path) and before is not None and stat == before[:2] and not whole
        if grown and stat is not None and entry.size <= stat[1]:
            data = b""  # what readers have counted stays
        else:
            start = stat[1] if grown and stat is not None else 0
            try:
                data = self._objects.read(f"{self._place}/{path}", start)
            except FileNotFoundError:
                return
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if start:
                with open(target, "ab") as file:
                    file.write(data)
            else:
                beside = target.with_name(f".{target.name}.{os.getpid()}")
                beside.touch(mode=0o600)
                beside.write_bytes(data)
                os.replace(beside, target)
        # Longer than listed: it was written again since, and is fetched once more.
        known[path] = [*(_stat(target) or [0, 0]), entry.size, entry.time]

    def _remove(self, known: dict[str, _Known], here: Collection[str]) -> None:
        for path in [path for path in known if os.path.basename(path) in _REMOVED]:
            if not (self._paths.root / path).exists():
                self._objects.delete(f"{self._place}/{path}")
                del known[path]


def _grows(path: str) -> bool:
    """Whether a file is only ever appended to."""
    return path.endswith((".jsonl", ".log"))


def _is_mirrored(path: str) -> bool:
    parts = path.split("/")
    if parts[0] == "trials":
        parts = parts[2:]
    inside = len(parts) > 1 and parts[0] in _FOLDERS and not parts[-1].startswith(".")
    return inside or (len(parts) == 1 and parts[0] in _FILES)


def _same(known: _Known, entry: Entry) -> bool:
    return known[2] == entry.size and known[3] in (None, entry.time)


def _stat(path: Path) -> list[int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_mtime_ns, found.st_size]


def _each(paths: list[str], call: Callable[[str], None]) -> None:
    """Does it for every path, several at a time: each waits for the store most of the time."""
    if len(paths) < 2:
        for path in paths:
            call(path)
        return
    with ThreadPoolExecutor(min(_AT_ONCE, len(paths)), "dlsys-mirror") as pool:
        for done in [pool.submit(call, path) for path in paths]:
            done.result()
