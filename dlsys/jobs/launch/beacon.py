"""Whether a worker sees the run's folder: asked before training, not at the first checkpoint."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from dlsys.errors import UsageError


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
