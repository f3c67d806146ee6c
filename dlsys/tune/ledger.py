"""What happened in a sweep, one JSON object a line: the truth from which everything else is rebuilt.

    {"event": "warm", "settings": {…}, "value": 0.9, "epoch": 9}        of an earlier sweep
    {"event": "trial", "trial": 3, "settings": {…}}                     it was chosen
    {"event": "leg", "trial": 3, "until": 9, "donor": null}             a piece of training began
    {"event": "again", "trial": 3}                                      … or was taken up again
    {"event": "report", "trial": 3, "epoch": 9, "value": 0.91, …}       … and came to its end
    {"event": "crash", "trial": 3, "cause": "…", "final": false}        … or not
    {"event": "test", "trial": 3, "metrics": {…}}                       the best one met the test set
    {"event": "extend", "trials": 84}                                   there may be so many from now on

A line is written before what it tells has any effect. Tune's own record of its trials is not used:
torn, it restarts an experiment with other trials than before.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dlsys.track.spool import records


class Ledger:
    """An append-only file of events; a torn last line, left by a killed process, is cut off.

    Args:
        read_only: the file belongs to another process: it is not touched, nor can it be written.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        found = records(path)
        self._past = [event for event, _ in found]
        self._file = -1
        if read_only:
            return
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._file, found[-1][1] if found else 0)

    def past(self) -> Iterator[dict[str, Any]]:
        """The events that were there when the file was opened."""
        yield from self._past

    def write(self, event: str, **values: Any) -> dict[str, Any]:
        """Appends an event, with the time, and gives it back.

        Raises:
            OSError: the disk is full, say.
        """
        record = {"event": event, **values, "time": round(time.time(), 3)}
        os.write(self._file, json.dumps(record, separators=(",", ":")).encode() + b"\n")
        return record

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
