"""Files below one address of an object store, through Arrow's file systems.

Arrow knows `s3`, `gs`, `abfs`, `hdfs` and `file` itself, and fsspec every scheme that is installed for it.
Rights come from the environment, as each store's own tools take them; a server that only speaks like S3
is named by AWS_ENDPOINT_URL.
https://arrow.apache.org/docs/python/filesystems.html
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlsys.errors import UsageError
from dlsys.jobs.mirror.journal import StoreError

# Stores without folders: making one would leave an empty object.
_FLAT = ("s3", "gcs", "abfs")
# A small file is one request and not the three of an upload in parts; by default, Google's store is asked
# for 15 minutes before it counts as away.
_SETTINGS = {"s3": "allow_delayed_open=true", "gs": "retry_limit_seconds=30"}
_PART = 16 * 1024 * 1024


@dataclass(frozen=True)
class Entry:
    """A file in the store, as far as two versions of it are told apart.

    Attributes:
        size: in bytes.
        time: of its last change, in ns as the store has it: some know seconds only.
    """

    size: int
    time: int


class Objects:
    """Files by their paths below an address.

    Args:
        address: `s3://bucket/folder`, or any other that Arrow or fsspec knows.

    Raises:
        UsageError: it means nothing here.
    """

    def __init__(self, address: str) -> None:
        self.address = masked(address)
        self._fs, self._root = _open(address)

    def read(self, path: str, start: int = 0) -> bytes:
        """A file's bytes from `start` on."""
        with _translated(self.address), self._fs.open_input_file(self._at(path)) as file:
            return bytes(file.read_at(max(0, file.size() - start), start))

    def write(self, path: str, data: bytes) -> None:
        with _translated(self.address):
            self._make_place(path)
            with self._fs.open_output_stream(self._at(path)) as file:
                file.write(data)

    def upload(self, source: Path, path: str) -> None:
        """Copies a local file that does not change."""
        from pyarrow import fs

        with _translated(self.address):
            self._make_place(path)
            fs.copy_files(
                str(source),
                self._at(path),
                source_filesystem=fs.LocalFileSystem(),
                destination_filesystem=self._fs,
                chunk_size=_PART,
            )

    def download(self, path: str, target: Path) -> None:
        from pyarrow import fs

        with _translated(self.address):
            fs.copy_files(
                self._at(path),
                str(target),
                source_filesystem=self._fs,
                destination_filesystem=fs.LocalFileSystem(),
                chunk_size=_PART,
            )

    def files(self, folder: str, *, deep: bool) -> dict[str, Entry]:
        """The files of a folder, by their paths, with `deep` also those of folders in it."""
        return {
            info.path.removeprefix(self._root).lstrip("/"): Entry(info.size, info.mtime_ns or 0)
            for info in self._infos(folder, deep)
            if info.is_file
        }

    def folders(self, folder: str) -> list[str]:
        """The names of the folders in a folder."""
        return [info.base_name for info in self._infos(folder, deep=False) if not info.is_file]

    def _infos(self, folder: str, deep: bool) -> Any:
        from pyarrow import fs

        selector = fs.FileSelector(self._at(folder), allow_not_found=True, recursive=deep)
        with _translated(self.address):
            return self._fs.get_file_info(selector)

    def entries(self, paths: list[str]) -> dict[str, Entry]:
        """Those of these files that are there."""
        with _translated(self.address):
            found = self._fs.get_file_info([self._at(path) for path in paths])
        return {
            path: Entry(info.size, info.mtime_ns or 0)
            for path, info in zip(paths, found, strict=True)
            if info.is_file
        }

    def delete(self, path: str) -> None:
        """Removes a file, which may be gone already."""
        with _translated(self.address), suppress(FileNotFoundError):
            self._fs.delete_file(self._at(path))

    def delete_folder(self, path: str) -> None:
        """Removes a folder with all that is in it; it may be gone already."""
        with _translated(self.address), suppress(FileNotFoundError):
            self._fs.delete_dir(self._at(path))

    def check(self, place: str = "") -> None:
        """Writes, reads and removes a small file.

        Raises:
            StoreError: one of that cannot be done.
        """
        path, text = f"{place}/.dlsys-{secrets.token_hex(8)}".lstrip("/"), secrets.token_bytes(8)
        self.write(path, text)
        if self.read(path) != text:
            raise StoreError(f"{self.address}: what was written is not what is read")
        self.delete(path)

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root

    def _make_place(self, path: str) -> None:
        if self._fs.type_name not in _FLAT:
            self._fs.create_dir(os.path.dirname(self._at(path)), recursive=True)


def _open(address: str) -> tuple[Any, str]:
    import pyarrow
    from pyarrow import fs

    try:
        try:
            found, root = fs.FileSystem.from_uri(_set(address))
        except pyarrow.ArrowInvalid:
            from fsspec.core import url_to_fs

            other, root = url_to_fs(address)
            found = fs.PyFileSystem(fs.FSSpecHandler(other))
        return found, root.rstrip("/")
    except (ValueError, ImportError, OSError, pyarrow.ArrowException) as error:
        raise UsageError(
            f"storage: {masked(address)}: {_reason(error)}",
            hint="Say s3://bucket/folder, gs://…, abfs://… or hdfs://…; others by their package of fsspec.",
        ) from error


def _set(address: str) -> str:
    """An address with what is to be otherwise than Arrow has it."""
    more = _SETTINGS.get(address.partition("://")[0])
    return f"{address}{'&' if '?' in address else '?'}{more}" if more else address


def masked(address: str) -> str:
    """An address for people: without its query."""
    return address.partition("?")[0].rstrip("/")


@contextmanager
def _translated(address: str) -> Iterator[None]:
    """Arrow's and fsspec's errors as StoreError; a missing file stays what it is."""
    import pyarrow

    try:
        yield
    except (FileNotFoundError, StoreError):
        raise
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise StoreError(f"{address}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """The first line of what a library says, without where in itself."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
