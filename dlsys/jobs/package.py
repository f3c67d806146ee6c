"""The working folder of a job as one zip file: what a cluster unpacks before the job starts.

Ray unpacks it (`runtime_env: {working_dir: …}`), and so it holds files and folders only: what a link points
at is packed in its place.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dlsys.errors import UsageError
from dlsys.jobs.selection import OWN_RULES, Item, select, shown
from dlsys.paths import home

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can hold
_CHUNK = 1 << 20
_MB = 10**6
# A folder of more than this times the limit is refused unpacked: what jobs need does not pack that small.
_HOPELESS = 20


@dataclass(frozen=True)
class Package:
    """A packed working folder.

    Attributes:
        path: the zip file.
        digest: its SHA-256, in hexadecimal; the same content gives the same.
        files: how many files are in it.
        bytes: how large it is.
        unpacked: how large what is in it is.
    """

    path: Path
    digest: str
    files: int
    bytes: int
    unpacked: int


def pack(
    folder: Path, target: Path, *, limit_mb: int, note: Callable[[str], None], wanted: Sequence[Path] = ()
) -> Package:
    """Packs a folder into the zip file `target`, readable by its owner alone.

    Args:
        limit_mb: how many MB the zip file may have.
        note: is told what was left out that one might miss.
        wanted: files and folders below it that must be in it, full paths.

    Raises:
        UsageError: a file that must be in it is left out or cannot be packed, or the package would be too
            large; nothing was written.
    """
    root = os.path.realpath(folder)
    if not os.path.isdir(root):
        raise UsageError(f"{folder}: is no folder")
    apart = frozenset(map(os.path.realpath, (home(), target)))
    chosen = select(root, apart)
    if chosen.problems:
        raise UsageError(
            "\n".join(f"{shown(path)}: {what}" for path, what in sorted(chosen.problems.items()))
        )
    for path in wanted:
        name = path.relative_to(root).as_posix()
        if name != "." and not any(item == name or item.startswith(f"{name}/") for item in chosen.items):
            raise UsageError(
                f"{path}: the job uses it, and it would not be packed: git ignores it, or {OWN_RULES} does",
                hint=f"Write !{name} into {OWN_RULES} in {root}.",
            )
    if chosen.secrets:
        note(
            f"left out, for they look like secrets: {_names(chosen.secrets)}; to send one, write "
            f"!{shown(os.path.basename(min(chosen.secrets)))} into {OWN_RULES}"
        )
    if chosen.idle_links:
        note(f"left out, for they point at nothing that is packed: {_names(chosen.idle_links)}")
    sizes = {name: item.size for name, item in chosen.items.items()}
    if sum(sizes.values()) > _HOPELESS * limit_mb * _MB:
        raise _too_large(root, sizes, limit_mb)
    try:
        handle, beside = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # mode 0600
        try:
            with open(handle, "w+b") as file:
                packed = _Writer(root, file, limit_mb * _MB)
                if not packed.write(chosen.items):
                    raise _too_large(root, sizes, limit_mb)
                file.seek(0)
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                size = file.seek(0, os.SEEK_END)
            os.replace(beside, target)
        except BaseException:
            os.unlink(beside)
            raise
    except OSError as error:
        raise UsageError(f"{target}: the package cannot be written: {error.strerror}") from error
    if packed.vanished:
        note(f"left out, for they were gone before they could be packed: {_names(packed.vanished)}")
    return Package(target, digest, packed.files, size, packed.unpacked)


class _Writer:
    """Writes one zip file.

    Attributes:
        files: how many are in it.
        unpacked: bytes of their content.
        vanished: files that were no longer there.
    """

    def __init__(self, root: str, file: IO[bytes], limit: int) -> None:
        self._root = root
        self._file = file
        self._limit = limit
        self.files = 0
        self.unpacked = 0
        self.vanished: list[str] = []

    def write(self, items: Mapping[str, Item]) -> bool:
        """Whether the package stayed within its limit; otherwise it is not complete."""
        with zipfile.ZipFile(self._file, "w") as archive:
            # From a storage's address, Ray drops the name of a single folder at the top and keeps what is
            # in it. With this entry the folder is not single; unpacked, it is nothing.
            archive.writestr(_entry("./", folder=True), b"")
            for name, item in sorted(items.items()):
                if name.endswith("/"):
                    archive.writestr(_entry(name, folder=True), b"")
                else:
                    self._add(archive, name, item)
                if self._full:
                    return False
        return not self._full

    @property
    def _full(self) -> bool:
        return self._file.tell() > self._limit

    def _add(self, archive: zipfile.ZipFile, name: str, item: Item) -> None:
        path = os.path.join(self._root, item.source)
        try:
            # A link or a pipe may have come in the file's place.
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
                raise _unreadable(name, error) from error
            self.vanished.append(name)
            return
        with open(handle, "rb", buffering=0) as file:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                self.vanished.append(name)
                return
            entry = _entry(name, executable=bool(found.st_mode & stat.S_IXUSR))
            entry.file_size = found.st_size
            with archive.open(entry, "w") as out:
                for chunk in _chunks(file, name, found.st_size):
                    out.write(chunk)
                    self.unpacked += len(chunk)
                    if self._full:
                        return
        self.files += 1


def _chunks(file: IO[bytes], name: str, size: int) -> Iterator[bytes]:
    """A file's first `size` bytes: one that grows all the while would have no end."""
    while size > 0:
        try:
            chunk = file.read(min(size, _CHUNK))
        except OSError as error:
            raise _unreadable(name, error) from error
        if not chunk:
            return
        size -= len(chunk)
        yield chunk


def _entry(name: str, *, folder: bool = False, executable: bool = False) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.create_system = 3  # Unix: the mode counts
    kind = stat.S_IFDIR if folder else stat.S_IFREG
    entry.external_attr = (kind | (0o755 if folder or executable else 0o644)) << 16
    entry.compress_type = zipfile.ZIP_STORED if folder else zipfile.ZIP_DEFLATED
    return entry


def _unreadable(name: str, error: OSError) -> UsageError:
    return UsageError(f"{shown(name)}: cannot be read: {error.strerror}", hint=f"Or list it in {OWN_RULES}.")


def _too_large(root: str, sizes: Mapping[str, int], limit_mb: int) -> UsageError:
    biggest = "\n".join(f"  {_size(size):>9}  {shown(name)}" for name, size in _biggest(sizes))
    return UsageError(
        f"{root}: is more than {limit_mb} MB when packed, which is the limit (max_package). "
        f"It has {_size(sum(sizes.values()))} unpacked; the biggest:\n{biggest}",
        hint=f"List what the job does not need in {OWN_RULES}, which is written like a .gitignore, "
        "or raise max_package in the cluster file.",
    )


def _biggest(sizes: Mapping[str, int], most: int = 5) -> list[tuple[str, int]]:
    """The biggest files and folders; a folder that is big for one thing in it is not named besides that."""
    totals: Counter[str] = Counter()
    for name, size in sizes.items():
        cut = len(name)
        while cut > 0:
            totals[name[:cut]] += size
            cut = name.rfind("/", 0, cut - 1) + 1
    echoes = {
        name[: name.rfind("/", 0, len(name) - 1) + 1]
        for name, size in totals.items()
        if size > 0.8 * totals[name[: name.rfind("/", 0, len(name) - 1) + 1]]
    }
    named = [(name, size) for name, size in totals.items() if name not in echoes]
    return sorted(named, key=lambda pair: (-pair[1], pair[0]))[:most]


def _size(count: int) -> str:
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count / 1000:.1f} kB"


def _names(names: Iterable[str], most: int = 8) -> str:
    ordered = sorted(map(shown, names))
    rest = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return ", ".join(ordered[:most]) + rest
