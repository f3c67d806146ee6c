"""Reading a file that a job names, with errors that name it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dlsys.errors import DataError

# So many of a list's items a message shows.
SHOWN = 10


def read_bytes(path: str, folder: Path) -> bytes:
    """The content of a file.

    Args:
        path: as the job file says it; messages name the file so.
        folder: where a relative path starts.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    with reading(path, folder) as full:
        return full.read_bytes()


@contextmanager
def reading(path: str, folder: Path) -> Iterator[Path]:
    """The file's full path, and the system's errors of reading it as ours. As `read_bytes` otherwise."""
    full = folder / path
    try:
        yield full
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


def listed(items: Sequence[str], separator: str, *, of: int | None = None) -> str:
    """The first ten items joined, and how many more there are.

    Args:
        of: how many there are in all, where `items` are but the first ones.
    """
    count = len(items) if of is None else of
    shown = list(items[:SHOWN])
    if count > len(shown):
        shown.append(f"and {count - len(shown)} more")
    return separator.join(shown)


def entries(folder: Path, root: Path) -> list[Path]:
    """What a folder holds, by name, without hidden files.

    Args:
        root: the data set's folder, out of which no link may lead.

    Raises:
        DataError: the folder cannot be read, or holds a link that leads out of `root`.
    """
    try:
        found = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from error
    for entry in found:
        # Someone else's data set must not be able to show a job files that it was not given.
        if entry.is_symlink() and not _leads_into(entry, root):
            raise DataError(
                f"{entry.relative_to(root)}: is a link out of {root}, or in a circle; "
                "put the file itself there"
            )
    return found


def _leads_into(link: Path, root: Path) -> bool:
    try:
        return link.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a circle; RuntimeError before Python 3.13
        return False


def folder_of(path: str, folder: Path) -> Path:
    """A folder that a job names, without links.

    Args:
        path: as the job file says it.
        folder: where a relative path starts.

    Raises:
        DataError: there is none.
    """
    root = (folder / path).resolve()
    if not root.is_dir():
        raise DataError(f"{path}: no such folder (looked for {root})")
    return root
