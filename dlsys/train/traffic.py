"""The count of what a worker sends in its steps, and of the time that this takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Traffic:
    """What the steps since `means` was asked last have sent; what happens outside of `step` does not count.

    Attributes:
        steps: training steps.
        sent: bytes that this worker sent; of a collective, as many as a ring sends.
        received: bytes, where they are not as many as those sent.
        seconds: of communication.
        exposed: those of them in which this worker did nothing else.
    """

    def __init__(self) -> None:
        self._counting = False
        self._clear()

    def _clear(self) -> None:
        self.steps = 0
        self.sent = self.received = self.seconds = self.exposed = 0.0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around a training step."""
        self.steps += 1
        self._counting = True
        try:
            yield
        finally:
            self._counting = False

    def add(
        self, *, sent: float = 0.0, received: float = 0.0, seconds: float = 0.0, exposed: float = 0.0
    ) -> None:
        """Counts what somebody else has measured."""
        if self._counting:
            self.sent += sent
            self.received += received
            self.seconds += seconds
            self.exposed += exposed

    @contextmanager
    def sending(self, sent: float = 0.0) -> Iterator[None]:
        """Around a call that sends so many bytes, and returns when it has."""
        begun = time.perf_counter()
        yield
        took = time.perf_counter() - begun
        self.add(sent=sent, seconds=took, exposed=took)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Around what is no communication inside of `sending`."""
        begun = time.perf_counter()
        yield
        took = time.perf_counter() - begun
        self.add(seconds=-took, exposed=-took)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around a wait for communication whose seconds another thread counts."""
        begun = time.perf_counter()
        yield
        self.add(exposed=time.perf_counter() - begun)

    def means(self, *, timed: bool) -> dict[str, float]:
        """Those of a step since the last call, as `Strategy.communication` returns them.

        Args:
            timed: whether the calls take as long as what they do; a GPU's return at once.
        """
        steps = max(1, self.steps)
        found = {"bytes": self.sent / steps}
        if timed:
            found |= {"seconds": self.seconds / steps, "exposed_seconds": self.exposed / steps}
        self._clear()
        return found
