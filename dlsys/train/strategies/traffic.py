"""The count of what a worker sends, where every collective of its steps passes through our hands."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Traffic:
    """Bytes that this worker sends in its steps, as a ring does it, and the seconds its collectives took."""

    def __init__(self) -> None:
        self._sent = self._seconds = 0.0
        self._steps = 0
        self._counting = False

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around a training step: what is sent elsewhere does not count."""
        self._steps += 1
        self._counting = True
        try:
            yield
        finally:
            self._counting = False

    @contextmanager
    def sending(self, sent: float) -> Iterator[None]:
        """Around a collective that sends so many bytes."""
        begun = time.perf_counter()
        yield
        if self._counting:
            self._sent += sent
            self._seconds += time.perf_counter() - begun

    def means(self, *, timed: bool) -> dict[str, float]:
        """Of the steps since it was last asked, as `Strategy.communication` returns them.

        Args:
            timed: whether the calls take as long as what they do; a GPU's return at once.
        """
        steps = max(1, self._steps)
        found = {"bytes": self._sent / steps}
        if timed:
            found |= {"seconds": self._seconds / steps, "exposed_seconds": self._seconds / steps}
        self._sent = self._seconds = 0.0
        self._steps = 0
        return found
