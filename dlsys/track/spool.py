"""An append-only file of one worker's figures, on their way to MLflow.

One line is one record, a JSON object: `t` is the time in ms, and either `s` (step) with `m`
(metrics), or `note`, or `tags` of the run, or `host` with the `memory` in bytes that a worker may use
there. A value that was recorded before is not recorded again: after a resume, the steps since the last
checkpoint are done twice but stand here once.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

# When the disk is full, this many records wait in memory before the oldest are given up.
_WAITING = 100_000


class Spool:
    """Implements the training loop's `Recorder`.

    Args:
        path: the file; a torn last line, left by a killed process, is cut off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last: dict[str, int] = {}
        good = 0
        for record, end in records(path):
            good = end
            for name in record.get("m", ()):
                self._last[name] = max(self._last.get(name, -1), int(record["s"]))
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)
        os.ftruncate(self._file, good)
        self._waiting: deque[bytes] = deque(maxlen=_WAITING)
        self._lock = threading.Lock()

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Records values of one step; returns at once, and never raises for a full disk."""
        fresh = {name: value for name, value in values.items() if step > self._last.get(name, -1)}
        if not fresh:
            return
        for name in fresh:
            self._last[name] = step
        self._write({"t": int(time.time() * 1000), "s": step, "m": fresh})

    def note(self, text: str) -> None:
        """Records a sentence for people."""
        self._write({"t": int(time.time() * 1000), "note": text})

    def tags(self, values: dict[str, str]) -> None:
        """Records tags of the run; a later value replaces an earlier one."""
        self._write({"t": int(time.time() * 1000), "tags": values})

    def place(self, host: str, memory: float) -> None:
        """Records where this worker is, for those who ask when it is dead."""
        self._write({"t": int(time.time() * 1000), "host": host, "memory": memory})

    def _write(self, record: dict[str, Any]) -> None:
        # NaN and infinities are written as Python's json does, and read back the same way.
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        with self._lock:  # the watchdog's thread notes too
            self._waiting.append(line)
            self._flush()

    def _flush(self) -> None:
        while self._waiting:
            line = self._waiting[0]
            try:
                written = os.write(self._file, line)
            except OSError:
                return  # disk full: tried again with the next record
            if written < len(line):
                self._waiting[0] = line[written:]
                return
            self._waiting.popleft()

    def close(self) -> int:
        """Returns how many records could not be written."""
        os.close(self._file)
        return len(self._waiting)


def records(path: Path, start: int = 0) -> list[tuple[dict[str, Any], int]]:
    """The whole records from byte `start` on, each with the position behind it.

    A torn line ends the list; a whole line that is no record is passed over.
    """
    try:
        with open(path, "rb") as file:
            file.seek(start)
            data = file.read()
    except FileNotFoundError:
        return []
    found, position = [], start
    for line in data.splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        position += len(line)
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            found.append((record, position))
    return found
