"""Notices that a worker has stopped to make steps, and says what every worker was doing.

A thread waits for the loop's beats. When none comes within the limit, it writes the stacks of all
threads and one line for people, waits a moment for the other workers to do the same (they hang
too, in a collective, and one that leaves early would take the others' stacks with it), and ends
the process.

What is slow is told from what hangs by where it is and by what it does: until the first step is done there
is building, compiling and loading, of which no earlier step says how long it takes; and a thread that
computes is at work, on whichever worker, while a collective, a lock or a dead connection wait.
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

import torch

from dlsys.paths import write_json

EXIT_CODE = 74  # EX_IOERR's neighbour in sysexits.h; any fixed one that nothing else uses
_AT_LEAST, _TIMES_LONGEST, _TIMES_FIRST = 60.0, 20.0, 2.0
# The limit of the first step, and how much more than others a thread gets that computes.
_FIRST, _TIMES_BUSY = 600.0, 10.0
# The share of a core above which a thread computes: on a crowded machine it gets no more, and who waits by
# looking again and again takes less.
_BUSY = 0.2
# A file says that a worker computes; it counts this long.
_FRESH = 15.0
_LIBRARIES = (sysconfig.get_paths()["stdlib"], sysconfig.get_paths()["purelib"])
_OURS = str(Path(__file__).parent.parent)


class Watchdog:
    """Watches the thread that makes it.

    Args:
        stacks: the folder for stacks; shared by all workers of the attempt.
        rank, size: this worker among how many.
        limit: seconds without a beat that are a hang; None takes 20 × the longest gap so far, at least 60 and
            twice that of the first step; ten times that while a worker computes; and 600 until the first
            step is done.
        note: called with one sentence when a step is slow enough to be told of.
        on_hang: called with one sentence after the stacks are written; ends the process.
    """

    def __init__(
        self,
        stacks: Path,
        rank: int,
        size: int,
        *,
        limit: float | None = None,
        note: Callable[[str], None] = lambda text: None,
        on_hang: Callable[[str], None] = lambda text: os._exit(EXIT_CODE),
    ) -> None:
        self._stacks, self._rank, self._size = stacks, rank, size
        self._limit, self._note, self._on_hang = limit, note, on_hang
        self._watched = threading.get_ident()
        self._clock = time.pthread_getcpuclockid(self._watched)
        self._step = 0
        self._last = time.monotonic()
        self._longest = self._first = 0.0
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
        if self._step > 1:
            self._longest = max(self._longest, now - self._last)
        else:
            self._first = max(self._first, now - self._last)
        self._step, self._last = step, now

    @property
    def limit(self) -> float:
        if self._limit is None:
            if self._step <= 1:
                return _FIRST
            # The first step imports, compiles and allocates; still, an agent's is as long as all others.
            return max(_AT_LEAST, _TIMES_LONGEST * self._longest, _TIMES_FIRST * self._first)
        # Until the first step is done there is loading and compiling, which steps' times say
        # nothing about.
        return self._limit if self._step > 1 else max(_AT_LEAST, self._limit)

    def _watch(self) -> None:
        silent_since, since, computed, told = 0.0, 0.0, 0.0, False
        while not self._done.wait(min(1.0, self.limit / 4)):
            if silent_since != self._last:
                silent_since, since, told = self._last, time.monotonic(), False
                computed = time.clock_gettime(self._clock)
            waited = time.monotonic() - silent_since
            limit = self.limit
            others = any(self._stacks.glob("rank-*.txt"))
            if not (waited > limit or (others and waited > 0.5 * limit)):
                if waited > min(_AT_LEAST, limit / 2) and not told and self._rank == 0:
                    told = True
                    self._note(self._slow(waited, limit))
                continue
            busy = time.clock_gettime(self._clock) - computed > _BUSY * (time.monotonic() - since)
            if self._patient(busy) and waited < _TIMES_BUSY * limit:
                continue
            self._bite(waited)
            return

    def _patient(self, busy: bool) -> bool:
        """Whether this worker, or another one that this one waits for, computes."""
        # Who waits for a GPU spins; and a limit that was given is kept.
        if self._limit is not None or torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            return False
        if busy:
            (self._stacks / f"busy-{self._rank}").touch()
        now = time.time()
        return any(now - path.stat().st_mtime < _FRESH for path in self._stacks.glob("busy-*"))

    def _slow(self, waited: float, limit: float) -> str:
        place, _ = where(sys._current_frames().get(self._watched))
        return (
            f"step {self._step} has taken {waited:.0f} s so far, at {place}; after {limit:.0f} s it is taken "
            "for a hang (failure.hang_after)"
        )

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
