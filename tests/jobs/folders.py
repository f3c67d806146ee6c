"""Working folders, made and packed."""

from __future__ import annotations

import os
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

from dlsys.jobs.package import Package, pack

GIT = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}


def fill(folder: Path, *paths: str) -> None:
    """Makes files, each with its path as its text; what ends with a slash is a folder."""
    for path in paths:
        if path.endswith("/"):
            (folder / path).mkdir(parents=True)
        else:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(path)


def ignore(folder: Path, text: str, name: str = ".gitignore") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def git(folder: Path, *arguments: str) -> str:
    settings = ("-c", "protocol.file.allow=always", "-c", "user.name=n", "-c", "user.email=e")
    done = subprocess.run(
        ["git", *settings, *arguments], cwd=folder, env=GIT, capture_output=True, check=True
    )
    return done.stdout.decode("utf-8", "surrogateescape")


def repository(folder: Path) -> None:
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "all")


class Packing:
    """Packs folders, always into the same file."""

    def __init__(self, place: Path) -> None:
        self.target = place / "package.zip"
        self.notes: list[str] = []

    def __call__(
        self, folder: Path, limit_mb: int = 100, note: Callable[[str], None] | None = None
    ) -> Package:
        self.notes = []
        return pack(folder, self.target, limit_mb=limit_mb, note=note or self.notes.append)

    def names(self, folder: Path) -> set[str]:
        """The files that are packed; and the folders that are packed for themselves, with a slash."""
        package = self(folder)
        with zipfile.ZipFile(package.path) as archive:
            found = [name for name in archive.namelist() if name != "./"]
        assert len(found) == len(set(found))
        assert package.files == len([name for name in found if not name.endswith("/")])
        return set(found)

    def content(self, name: str) -> bytes:
        return zipfile.ZipFile(self.target).read(name)
