"""Whether a worker reaches the run's files: asked before training, not at the first checkpoint."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dlsys.errors import UsageError

if TYPE_CHECKING:
    from dlsys.jobs.mirror.objects import Objects


@dataclass(frozen=True)
class Beacon:
    """A file in a folder, lit by the driver as a context, and looked for by each worker where it is.

    Attributes:
        folder: must be seen from every node.
        text: what only a worker that sees it can read.
    """

    folder: Path
    text: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def _file(self) -> Path:
        return self.folder / f".beacon-{self.text}"

    def __enter__(self) -> Beacon:
        self._file.write_text(self.text)
        return self

    def __exit__(self, *error: object) -> None:
        self._file.unlink(missing_ok=True)

    def look(self, host: str) -> None:
        """Reads what the driver wrote, and writes beside it.

        Raises:
            UsageError: this machine does not see the folder, or may not write there.
        """
        try:
            seen = self._file.read_text() == self.text
            mine = self._file.with_name(f"{self._file.name}-{os.getpid()}-{secrets.token_hex(4)}")
            mine.write_text(self.text)
            mine.unlink()
        except OSError as error:
            why = "does not see" if isinstance(error, FileNotFoundError) else f"{error.strerror}:"
        else:
            if seen:
                return
            why = "sees something else in"
        raise UsageError(
            f"{host} {why} {self.folder}: all nodes of a run need its folder at one path, to write",
            hint="Give the cluster a `storage:` that they share, or set DLSYS_HOME to a shared folder.",
        )


@dataclass(frozen=True)
class StoreBeacon(Beacon):
    """The same in an object store, where the run's files are instead.

    Attributes:
        store: its address.
    """

    store: str = ""

    def __enter__(self) -> StoreBeacon:
        with self._told(socket.gethostname()) as objects:
            objects.write(self._object, self.text.encode())
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(UsageError), self._told(socket.gethostname()) as objects:
            objects.delete(self._object)

    def look(self, host: str) -> None:
        with self._told(host) as objects:
            try:
                seen = objects.read(self._object) == self.text.encode()
            except FileNotFoundError:
                seen = False
            if not seen:
                raise OSError(f"{objects.address}: what the driver wrote is not there")
            objects.check(os.path.dirname(self._object))

    @property
    def _object(self) -> str:
        return f"runs/{self.folder.name}/{self._file.name}"

    @contextmanager
    def _told(self, host: str) -> Iterator[Objects]:
        from dlsys.jobs.mirror.objects import Objects

        try:
            yield Objects(self.store)
        except OSError as error:
            raise UsageError(
                f"{host}: {error}",
                hint="All nodes of a run need its store, to read, write and delete in.",
            ) from error


def beacon_of(folder: Path, store: str) -> Beacon:
    """The one for a run's folder, which is in a store or seen from every node."""
    return StoreBeacon(folder, store=store) if store else Beacon(folder)
