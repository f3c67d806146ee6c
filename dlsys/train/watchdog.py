"""Notices that a worker has stopped to make steps, and says what every worker was doing.

A thread waits for the loop's beats. When none comes within the limit, it writes the stacks of all
threads and one line for people, waits a moment for the other workers to do the same (they hang
too, in a collective, and one that leaves early would take the others' stacks with it), and ends
the process.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from dlsys.paths import write_json

EXIT_CODE = 74  # EX_IOERR's neighbour in sysexits.h; any fixed one that nothing else uses
_AT_LEAST, _TIMES_LONGEST = 60.0, 20.0
_LIBRARIES = (sysconfig.get_paths()["stdlib"], sysconfig.get_paths()["purelib"])
_OURS = str(Path(__file__).parent.parent)


class Watchdog:
    """Watches the thread that makes it.

    Args:
        stacks: the folder for stacks; shared by all workers of the attempt.
        rank, size: this worker among how many.
        limit: seconds without a beat that are a hang; None takes 20 × the longest gap so far,
            and at least 60.
        on_hang: called with one sentence after the stacks are written; ends the process.
    """

    def __init__(
        self,
        stacks: Path,
        rank: int,
        size: int,
        *,
        limit: float | None = None,
        on_hang: Callable[[str], None] = lambda text: os._exit(EXIT_CODE),
    ) -> None:
        self._stacks, self._rank, self._size = stacks, rank, size
        self._limit, self._on_hang = limit, on_hang
        self._watched = threading.get_ident()
        self._step = 0
        self._last = time.monotonic()
        self._longest = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="dlsys-watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join(timeout=2)

    def beat(self, step: int) -> None:
        """A step begins, or something long has ended."""
        now = time.monotonic()
        # The first step imports, compiles and allocates; it says nothing about the later ones.
        if self._step > 1:
            self._longest = max(self._longest, now - self._last)
        self._step, self._last = step, now

    @property
    def limit(self) -> float:
        if self._limit is None:
            return max(_AT_LEAST, _TIMES_LONGEST * self._longest)
        # Until the first step is done there is loading and compiling, which steps' times say
        # nothing about.
        return self._limit if self._step > 1 else max(_AT_LEAST, self._limit)

    def _watch(self) -> None:
        while not self._done.wait(min(1.0, self.limit / 4)):
            waited = time.monotonic() - self._last
            others = any(self._stacks.glob("rank-*.txt"))
            if waited > self.limit or (others and waited > 0.5 * self.limit):
                self._bite(waited)
                return

    def _bite(self, waited: float) -> None:
        frame = sys._current_frames().get(self._watched)
        place, inside = where(frame)
        try:
            with open(self._stacks / f"rank-{self._rank}.txt", "w") as file:
                file.write(f"rank {self._rank}, step {self._step}, {waited:.0f} s without progress\n\n")
                file.flush()
                faulthandler.dump_traceback(file, all_threads=True)
            write_json(
                self._stacks / f"rank-{self._rank}.json",
                {"rank": self._rank, "step": self._step, "where": place, "waits": not inside},
            )
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline and len(list(self._stacks.glob("*.json"))) < self._size:
                time.sleep(0.1)
        finally:
            self._on_hang(
                f"no progress for {waited:.0f} s: rank {self._rank} is in step {self._step}, at {place}; "
                f"failure.hang_after is how long a step may take, {self.limit:g} s here"
            )


def where(frame: FrameType | None) -> tuple[str, bool]:
    """The innermost place outside of libraries and of dlsys, and whether there is one.

    Without one, the innermost place of all: such a worker waits for the others.
    """
    frames = traceback.extract_stack(frame) if frame else []
    own = [
        f
        for f in frames
        if not f.filename.startswith((*_LIBRARIES, _OURS, "<")) and "site-packages" not in f.filename
    ]
    # The start of the program is the user's file too when dlsys is called from a script.
    chosen = own[-1] if own and own[-1].name != "<module>" else (frames[-1] if frames else None)
    if chosen is None:
        return "an unknown place", False
    inside = bool(own) and chosen is own[-1]
    return f"{chosen.filename}:{chosen.lineno} ({chosen.name})", inside
