"""What listens for workers: a thread for each, and one lock under which they wait for each other.

Torch's kernels and the sockets leave Python's lock alone. Without Ray: its process is somebody
else's business.
"""

from __future__ import annotations

import socket
import sys
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from dlsys.train.ps.wire import Channel

_Member = TypeVar("_Member")


class Lost(Exception):
    """Another worker is gone that this one waits for."""


class Service(ABC, Generic[_Member]):
    """Serves workers from `start` to `close`; a message that asks for `x` goes to `_on_x`.

    Args:
        key: the run's secret, in hex.
        listener: a bound socket that listens.

    Attributes:
        name: what workers' errors call it.
    """

    name: str

    def __init__(self, key: str, listener: socket.socket) -> None:
        self._key, self._listener = key, listener
        self._moved = threading.Condition()
        self._closed = False
        self._channels: set[Channel] = set()
        self._threads: list[threading.Thread] = []

    @abstractmethod
    def _join(self, channel: Channel) -> _Member:
        """Greets a worker; what this side knows of it."""

    @abstractmethod
    def _left(self, member: _Member) -> None:
        """A worker's connection has ended; the lock is held."""

    @property
    def address(self) -> str:
        host, port = self._listener.getsockname()[:2]
        return f"{host}:{port}"

    def start(self) -> None:
        self._run(self._accept)

    def _run(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, name="dlsys-ps", daemon=True)
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        """Ends all connections and threads."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        with self._moved:
            self._closed = True
            self._moved.notify_all()
            for channel in self._channels:
                channel.close()
        for thread in self._threads:
            thread.join(timeout=10)

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            self._run(self._serve, connected)

    def _serve(self, connected: socket.socket) -> None:
        member = None
        try:
            channel = Channel.accept(connected, self._key)
        except OSError:
            connected.close()
            return
        self._channels.add(channel)
        try:
            member = self._join(channel)
            while True:
                message = channel.header()
                answer: Callable[..., None] = getattr(self, f"_on_{message['ask']}")
                answer(channel, member, message)
        except OSError:
            pass  # gone; whoever waits for it is told below
        except Exception as error:
            if not isinstance(error, Lost):
                traceback.print_exc(file=sys.stderr)
            with suppress(OSError):
                text = f"{self.name} says: {type(error).__name__}: {error}"
                channel.send({"error": text, "lost": isinstance(error, Lost)})
        finally:
            with self._moved:
                self._channels.discard(channel)
                if member is not None:
                    self._left(member)
                self._moved.notify_all()
            channel.close()

    def _wait(self, ready: Callable[[], bool]) -> None:
        """Until it is so; the caller holds the lock.

        Raises:
            Lost: it can no longer become so.
        """
        while not ready():
            self._check()
            self._moved.wait()

    def _check(self) -> None:
        """Raises Lost where waiting is in vain; the lock is held."""
        if self._closed:
            raise Lost("it has ended")
