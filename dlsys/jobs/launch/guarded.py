"""A rank's command and its guard (`guard.py`), as the one who started them sees them; and its log."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO


class Guarded:
    """A command that runs; all of it ends with this process, however that ends.

    Args:
        command: its words.
        log: gets its output, at the end of what is there.
        env: all its variables; its output is not buffered, unless they say so.
        folder: where it runs; by default here.
    """

    def __init__(
        self, command: Sequence[str], log: Path, env: Mapping[str, str], folder: str | None = None
    ) -> None:
        self._guard = subprocess.Popen(
            [sys.executable, "-P", "-m", "dlsys.jobs.launch.guard", str(log), *command],
            env={"PYTHONUNBUFFERED": "1", **env},
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._guard.wait()  # it goes on as a process of its own

    def fileno(self) -> int:
        """Ready to be read as soon as all of it has ended."""
        assert self._guard.stdout is not None
        return self._guard.stdout.fileno()

    def code(self) -> int | None:
        """Waits for all of it to end; its exit code, negative for a signal.

        None where its guard was killed.
        """
        assert self._guard.stdout is not None
        said = self._guard.stdout.read()
        return int(said) if said else None

    def end(self, grace: float, number: int) -> None:
        """Sends a signal to all of it, and after `grace` seconds SIGKILL."""
        assert self._guard.stdin is not None
        with suppress(BrokenPipeError):  # it has ended
            self._guard.stdin.write(f"end {grace} {int(number)}\n".encode())
            self._guard.stdin.flush()

    def kill(self) -> None:
        """Ends all of it at once."""
        assert self._guard.stdin is not None
        with suppress(BrokenPipeError):
            self._guard.stdin.close()


def how(code: int | None, lost: str) -> str:
    """How a command ended, as the end of a sentence.

    Args:
        code: as `Guarded.code` has it.
        lost: why nobody may know.
    """
    if code is None:
        return f"was lost: {lost}"
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


class Shown:
    """Copies what is new in a log to a stream; the file may come later.

    Args:
        path: the log; what is there already is old.
        to: the stream; where nobody reads it any more, the log has it all.
    """

    def __init__(self, path: Path, to: IO[bytes]) -> None:
        self._path, self._to = path, to
        self._offset = size(path)

    def show(self) -> None:
        with suppress(OSError), open(self._path, "rb") as log:
            log.seek(self._offset)
            while new := log.read(1 << 16):
                self._offset = log.tell()
                self._to.write(new)
            self._to.flush()


def size(path: Path) -> int:
    """A log's bytes; 0 where it is not there yet."""
    return path.stat().st_size if path.exists() else 0


def last_lines(path: Path, since: int, most: int) -> list[str]:
    """The last lines of a log.

    Args:
        since: where it begins that is told of, in bytes.
        most: how many.
    """
    with suppress(OSError), open(path, "rb") as log:
        log.seek(max(since, size(path) - (1 << 16)))
        return log.read().decode(errors="replace").splitlines()[-most:]
    return []
