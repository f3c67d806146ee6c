"""A way through ssh to what listens on another machine's own loopback alone."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

from dlsys.errors import RunError

_OPEN_WITHIN = 60.0
_LOOK = 0.05


@contextmanager
def tunnel(ssh: Sequence[str], host: str, port: int) -> Iterator[int]:
    """A port of this machine that leads to `127.0.0.1:port` of another, until the context ends.

    Args:
        ssh: the command with options of its own: `["ssh", "-i", "key"]`.
        host: the other machine, as ssh takes it.
        port: where something listens there.

    Raises:
        RunError: ssh does not get there, with its own words.
    """
    local = _free_port()
    command = [
        *ssh,
        "-N",
        *("-L", f"127.0.0.1:{local}:127.0.0.1:{port}"),
        # A connection of its own: a shared one would keep the way open after we are gone.
        *("-S", "none"),
        *("-o", "BatchMode=yes"),
        *("-o", "ExitOnForwardFailure=yes"),
        *("-o", "ServerAliveInterval=15"),
        *("--", host),
    ]
    with tempfile.TemporaryFile() as said:
        try:
            # A session of its own: Ctrl-C is for the client, which may have a last word to send.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
            )
        except OSError as error:
            raise RunError(
                f"{ssh[0]} cannot be started: {error.strerror}", hint="Install OpenSSH."
            ) from error
        try:
            _await_open(process, local, host, said)
            yield local
        finally:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await_open(process: subprocess.Popen[bytes], port: int, host: str, said: IO[bytes]) -> None:
    deadline = time.monotonic() + _OPEN_WITHIN
    while True:
        ended = process.poll()
        if ended is not None or time.monotonic() > deadline:
            said.seek(0)
            words = said.read().decode(errors="replace").strip()
            why = words or (
                f"ssh ended with {ended}" if ended is not None else f"nothing in {_OPEN_WITHIN:g} s"
            )
            raise RunError(
                f"no way to {host} by ssh: {why}", hint=f"This must work by itself: ssh {host} true"
            )
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(_LOOK)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
