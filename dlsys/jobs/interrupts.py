"""SIGINT and SIGTERM: a last checkpoint first, then the end, and never much later than asked."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from dlsys.errors import Interrupted

# A last checkpoint gets this long; after that the run ends from its last one.
GRACE = 6.0
_LAST = 2.5


class Interrupts:
    """While active, the first signal asks for the end; a second one, or time, forces it.

    Args:
        may_exit: whether the process is ended where it does not come back by itself.

    Attributes:
        last_act: called just before the process is ended by force.
    """

    def __init__(self, *, may_exit: bool = True) -> None:
        self._may_exit = may_exit
        self.received = False
        self.exit_code = 130
        self.last_act: Callable[[], None] = lambda: None
        self._deadline = float("inf")
        self._before: dict[int, Any] = {}
        self._timer: threading.Timer | None = None

    @property
    def overdue(self) -> bool:
        return time.monotonic() > self._deadline

    @property
    def left(self) -> float:
        """Seconds until the process is ended by force."""
        return max(0.0, self._deadline + _LAST - time.monotonic())

    def disarm(self) -> None:
        """From now on nothing is cut off before the end by force: what is left to do is short."""
        if self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def __enter__(self) -> Interrupts:
        self._alarm, self._began = signal.getitimer(signal.ITIMER_REAL), time.monotonic()
        self._before = self.install()
        return self

    def install(self) -> dict[int, Any]:
        """Takes the signals; again after a library (`ray.init`) has taken them for itself.

        Returns:
            The handlers before, by signal; none outside of the main thread, which alone may.
        """
        if threading.current_thread() is not threading.main_thread():
            return {}
        handlers = {
            signal.SIGINT: self._on_signal,
            signal.SIGTERM: self._on_signal,
            signal.SIGALRM: self._on_alarm,
        }
        return {number: signal.signal(number, handler) for number, handler in handlers.items()}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.disarm()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._before and self._alarm[0]:  # the caller's own
            left = self._alarm[0] - (time.monotonic() - self._began)
            signal.setitimer(signal.ITIMER_REAL, max(left, 1e-3), self._alarm[1])

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            self._deadline = 0.0
            raise Interrupted(exit_code=self.exit_code)
        self.received = True
        self.exit_code = 128 + number
        self._deadline = time.monotonic() + GRACE
        signal.setitimer(signal.ITIMER_REAL, GRACE)
        if not self._may_exit:
            return
        # Code that never comes back to Python cannot be interrupted from within.
        self._timer = threading.Timer(GRACE + _LAST, self._force)
        self._timer.daemon = True
        self._timer.start()

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        raise Interrupted(exit_code=self.exit_code)

    def _force(self) -> None:
        self.last_act()
        os._exit(self.exit_code)
