"""Files that are made of data once on a machine, and kept as long as they are used."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

# What can be made again is kept so long from its last use on.
_UNUSED_DAYS = 14


def made_once(place: Path, make: Callable[[], None]) -> None:
    """Has a file made if it is not there; others on this machine that need the same one wait.

    Args:
        place: where it is to lie; what lies beside it unused is removed first.
        make: makes it, beside its place and renamed into it when it is whole.

    Raises:
        OSError: there is no room for it; and what `make` raises.
    """
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not place.exists():
        with FileLock(place.with_suffix(".lock")):
            if not place.exists():
                _tidy(place)
                make()
    os.utime(place)


def _tidy(place: Path) -> None:
    """Removes files beside `place` of the same ending that nobody has used for two weeks, and their locks."""
    for path in place.parent.glob(f"*{place.suffix}"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _UNUSED_DAYS * 86400:
                path.unlink()
                path.with_suffix(".lock").unlink(missing_ok=True)
