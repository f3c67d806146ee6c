"""Messages to a simulator and its answers: a line of JSON each, over TCP."""

from __future__ import annotations

import hmac
import json
import os
import secrets
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from dlsys.errors import WorkloadError
from dlsys.processes import kill
from dlsys.spec.rl.external import External, host_and_port

PROTOCOL = 1
_ADDRESS, _TOKEN = "DLSYS_SIMULATOR", "DLSYS_SIMULATOR_TOKEN"
_LONGEST = 64 * 2**20
_PIECE = 2**18
# Seconds between two looks at whether a started program lives, and that it has to end by itself.
_LOOK, _ENDS = 0.05, 3.0


class Connection:
    """One session with a simulator.

    Args:
        found: the socket.
        place: whose it is, in messages.
        process: the program that was started for it, to be ended with it.
    """

    def __init__(
        self, found: socket.socket, place: str, process: subprocess.Popen[bytes] | None = None
    ) -> None:
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket, self.place, self._process = found, place, process
        self._rest = b""

    def ask(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The answer to a message.

        Raises:
            WorkloadError: there is none within so many seconds, it is no answer, or it tells an error.
        """
        what, until = message["type"], time.monotonic() + seconds
        self.tell(message, seconds)
        try:
            line = self._line(until)
        except TimeoutError as error:
            raise self.failure(
                f"gave no answer to {what!r} within {seconds:g} s (environment.options.timeout)"
            ) from error
        except OSError as error:
            raise self._gone(what, error) from error
        if line is None:
            raise self._gone(what)
        return self._read(line, what)

    def tell(self, message: dict[str, Any], seconds: float) -> None:
        """Sends a message that may have no answer."""
        what = message["type"]
        try:
            self._socket.settimeout(seconds)
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except TimeoutError as error:
            raise self.failure(f"took nothing of {what!r} for {seconds:g} s") from error
        except OSError as error:
            raise self._gone(what, error) from error

    def _line(self, until: float) -> bytes | None:
        """The next one without its end; None where the connection has ended."""
        parts, length = [self._rest], len(self._rest)
        while b"\n" not in parts[-1]:
            if length > _LONGEST:
                raise self.failure(f"sent a message of more than {_LONGEST // 2**20} MiB, which is too long")
            self._socket.settimeout(max(until - time.monotonic(), 1e-3))
            parts.append(self._socket.recv(_PIECE))
            if not parts[-1]:
                return None
            length += len(parts[-1])
        line, _, self._rest = b"".join(parts).partition(b"\n")
        return line

    def _read(self, line: bytes, what: str) -> dict[str, Any]:
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError) as error:
            shown = line[:60].decode("utf-8", "replace")
            raise self.failure(f"answered {what!r} with what is no JSON ({error}): {shown!r}") from error
        if not isinstance(answer, dict):
            raise self.failure(f"answered {what!r} with {type(answer).__name__}, and not with an object")
        if "error" in answer:
            raise self.failure(f"answered {what!r} with an error: {answer['error']}")
        return answer

    def _gone(self, what: str, error: OSError | None = None) -> WorkloadError:
        if self._process is not None and (how := ending(self._process, _ENDS)):
            return self.failure(f"{how} when it was asked for {what!r}")
        why = f" ({error.strerror or error})" if error else ""
        return self.failure(f"closed the connection when it was asked for {what!r}{why}")

    def failure(self, text: str) -> WorkloadError:
        return WorkloadError(f"the simulator at {self.place} {text}")

    def close(self) -> None:
        """Ends the session, and the program that was started for it."""
        with suppress(WorkloadError):
            self.tell({"type": "close"}, 1.0)
        self.cut()

    def cut(self) -> None:
        """Ends it without a word."""
        self._socket.close()
        if self._process is not None:
            end(self._process)


def connect(told: External) -> tuple[Connection, dict[str, Any]]:
    """A session with a simulator, and what it told of itself.

    Raises:
        WorkloadError: there is none within the time that it has, or it speaks another protocol.
    """
    until = time.monotonic() + told.start_timeout
    hello = {"type": "hello", "protocol": PROTOCOL, "settings": told.settings}
    if told.command:
        return _started(told, hello, until)
    assert told.address is not None
    if told.token_file:
        hello["token"] = _secret(told.token_file)
    found = Connection(_reached(told.address, told.start_timeout), told.address)
    try:
        return found, _met(found, hello, until)
    except BaseException:
        found.cut()
        raise


def _met(found: Connection, hello: dict[str, Any], until: float) -> dict[str, Any]:
    """What a simulator answers to the first message."""
    answer = found.ask(hello, max(until - time.monotonic(), 0.1))
    if answer.get("protocol") != PROTOCOL:
        raise found.failure(
            f"speaks protocol {answer.get('protocol')!r}, and this dlsys speaks {PROTOCOL}: take versions "
            "that speak the same"
        )
    return answer


def _reached(address: str, seconds: float) -> socket.socket:
    """A connection to who listens there; one that only just starts is waited for."""
    until = time.monotonic() + seconds
    while True:
        try:
            return socket.create_connection(host_and_port(address), max(until - time.monotonic(), 0.1))
        except OSError as error:
            if time.monotonic() + 4 * _LOOK < until:
                time.sleep(4 * _LOOK)
                continue
            raise WorkloadError(
                f"the simulator at {address} cannot be reached within {seconds:g} s "
                f"(environment.options.start_timeout): {error.strerror or error}",
                hint="Start it first, or let dlsys do it: environment.options.command",
            ) from error


def _started(told: External, hello: dict[str, Any], until: float) -> tuple[Connection, dict[str, Any]]:
    """A simulator that is started here and connects to us: a port that is given out and bound later could
    have been taken by another one meanwhile."""
    token, shown = secrets.token_urlsafe(24), shlex.join(told.command)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        process = _run(told.command, {_ADDRESS: address, _TOKEN: token})
        place = f"{address} ({shown if len(shown) <= 60 else shown[:59] + '…'}, process {process.pid})"
        try:
            found = Connection(_accepted(server, process, place, told.start_timeout, until), place, process)
            answer = _met(found, hello, until)
            if not hmac.compare_digest(str(answer.get("token", "")).encode(), token.encode()):
                raise found.failure(f"did not show the token of its variable {_TOKEN}")
        except BaseException:
            end(process)
            raise
    return found, answer


def _run(command: Sequence[str], told: dict[str, str]) -> subprocess.Popen[bytes]:
    try:
        # In a session of its own, so that Ctrl-C ends the run and not the simulator first. What it prints is
        # talk, and stdout is for data.
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=2, env={**os.environ, **told}, start_new_session=True
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WorkloadError(f"the simulator {shlex.join(command)} cannot be started: {reason}") from error


def _accepted(
    server: socket.socket, process: subprocess.Popen[bytes], place: str, seconds: float, until: float
) -> socket.socket:
    while True:
        server.settimeout(_LOOK)
        with suppress(TimeoutError):
            return server.accept()[0]
        if how := ending(process):
            raise WorkloadError(f"the simulator at {place} {how} before it connected")
        if time.monotonic() > until:
            raise WorkloadError(
                f"the simulator at {place} did not connect within {seconds:g} s "
                "(environment.options.start_timeout)"
            )


def ending(process: subprocess.Popen[bytes], seconds: float = 0.0) -> str:
    """How a process ended, in words; empty while it lives."""
    with suppress(subprocess.TimeoutExpired):
        code = process.wait(seconds)
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return ""


def end(process: subprocess.Popen[bytes]) -> None:
    """Waits a moment for a process whose connection has ended, and then kills it and its children."""
    try:
        below = psutil.Process(process.pid).children(recursive=True)
    except psutil.Error:
        below = []
    if not ending(process, _ENDS):
        with suppress(psutil.Error):
            kill([*below, psutil.Process(process.pid)])
        process.wait()
    kill(below)


def _secret(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WorkloadError(f"environment.options.token_file: {path} cannot be read: {reason}") from error
