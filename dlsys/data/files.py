"""Reading a file that a job names, with errors that name it."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from dlsys.errors import DataError

_SHOWN = 10


def read_bytes(path: str, folder: Path) -> bytes:
    """The content of a file.

    Args:
        path: as the job file says it; messages name the file so.
        folder: where a relative path starts.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    full = folder / path
    try:
        return full.read_bytes()
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: no such file (looked for {full})",
            hint="a relative path starts at the job file's folder",
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def packaged(name: str) -> Path:
    """A data file of scikit-learn's.

    It is read as it lies in the package: importing scikit-learn takes a second, and every worker would
    wait for it.
    """
    found = importlib.util.find_spec("sklearn")
    assert found is not None, "scikit-learn is a dependency"
    assert found.origin is not None, "scikit-learn is a package"
    return Path(found.origin).parent / "datasets" / "data" / name


def listed(items: Sequence[str], separator: str) -> str:
    """The first ten items joined, and how many more there are."""
    shown = list(items[:_SHOWN])
    if len(items) > _SHOWN:
        shown.append(f"and {len(items) - _SHOWN} more")
    return separator.join(shown)
