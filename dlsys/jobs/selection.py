"""Which files of a working folder travel with a job.

What git has or would have, where the folder is in a work tree; what no `.gitignore` names, elsewhere. A
`.dlsysignore` outranks both, either way. What looks like a secret needs a line there (`!.env`) to come along.
"""

from __future__ import annotations

import ntpath
import os
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from dlsys.jobs.ignore import IgnoreFile, git_files, verdict

OWN_RULES = ".dlsysignore"
_NEVER = {".git", ".dlsys", ".venv", "__pycache__"}
_SECRET = re.compile(
    r"""(.*/)? (
        \.env (\. (?! (example|sample|template|dist)$ ) .+ )?
        | .*\.(pem|key|p12|pfx|token) | .*[_-]token | token(\.(txt|json))?
        | id_(rsa|dsa|ecdsa|ed25519).* | [._]netrc | \.git-credentials | \.pypirc
        | (application_default_)?credentials\.json | \.aws/credentials
    )""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)


class Item(NamedTuple):
    """A file to be packed.

    Attributes:
        source: where its content is, below the folder.
        size: in bytes.
    """

    source: str
    size: int


@dataclass
class Selection:
    """What of a folder is to be packed, and what was found on the way.

    Attributes:
        items: by path below the folder; a folder with nothing in it ends with a slash.
        problems: what keeps the folder from being packed, each with its mend, by path.
        secrets: files that were left out because they look like secrets.
        idle_links: links that were left out because what they point at does not exist, or is left out.
    """

    items: dict[str, Item] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    idle_links: list[str] = field(default_factory=list)


class _Place(NamedTuple):
    """A folder on the way.

    Attributes:
        path: below the folder that is packed, with a slash at the end; empty for that folder itself.
        own: the `.dlsysignore` files from the top to here.
        git: the `.gitignore` files from the top to here; None where git's own list is at hand.
        brought: a `.dlsysignore` names it, or a folder around it, with `!`.
        lost: git ignores it, or a folder around it; a `.dlsysignore` may still bring back single files.
    """

    path: str
    own: tuple[IgnoreFile, ...]
    git: tuple[IgnoreFile, ...] | None
    brought: bool = False
    lost: bool = False


class _Listed:
    """What git lists, and all folders with something listed in them."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.folders: set[str] = set()

    def add(self, files: Iterable[str]) -> None:
        for file in files:
            self.files.add(file)
            above = file.rpartition("/")[0]
            while above and above not in self.folders:
                self.folders.add(above)
                above = above.rpartition("/")[0]


def select(folder: str, apart: frozenset[str]) -> Selection:
    """Looks at all files of a folder, an absolute path without links; never at those in `apart`."""
    found = Selection()
    links: list[str] = []
    listed = _Listed()
    known = git_files(folder)
    listed.add(known or ())
    outer = _with_file((), f"{folder}/.git/info/exclude", folder) if known is None else None
    places = [_Place("", (), outer)]
    while places:
        place = places.pop()
        try:
            with os.scandir(f"{folder}/{place.path}") as opened:
                entries = list(opened)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            found.problems[place.path] = _unreadable(error.strerror)
            continue
        names = {entry.name for entry in entries}
        if place.path and "pyvenv.cfg" in names:  # a virtual environment
            continue
        if place.path and not names and not place.lost:
            found.items[place.path] = Item(place.path, 0)
        here = f"{folder}/{place.path}".rstrip("/")
        own = _with_file(place.own, f"{here}/{OWN_RULES}", here) if OWN_RULES in names else place.own
        git = place.git
        if git is not None and ".gitignore" in names:
            git = _with_file(git, f"{here}/.gitignore", here)
        brings_back = any(file.brings_back for file in own)
        for entry in entries:
            path = place.path + entry.name
            if entry.name in _NEVER or entry.path in apart:
                continue
            is_folder = entry.is_dir(follow_symlinks=False)
            said = verdict(own, entry.path, folder=is_folder)
            if said:
                continue
            brought = said is False or place.brought
            lost = not brought and (
                place.lost
                or (
                    _unlisted(entry, path, listed, folder=is_folder)
                    if git is None
                    else bool(verdict(git, entry.path, folder=is_folder))
                )
            )
            if is_folder:
                if not lost or brings_back:
                    inner = git
                    if git is None and path in listed.files:  # another repository
                        # One that was never fetched is a plain folder.
                        fetched = os.path.exists(f"{entry.path}/.git")
                        known = git_files(entry.path) if fetched else None
                        listed.add(f"{path}/{name}" for name in known or ())
                        inner = () if known is None else None
                    places.append(_Place(f"{path}/", own, inner, brought, lost))
            elif not lost:
                if said is None and _SECRET.fullmatch(path):
                    found.secrets.append(path)
                elif entry.is_symlink():
                    links.append(path)
                elif entry.is_file(follow_symlinks=False):
                    _add(found, path, entry)
    _follow(folder, links, found)
    for path in found.items:
        if mend := _unfit(path):
            found.problems[path] = mend
    return found


def _with_file(files: tuple[IgnoreFile, ...], path: str, base: str) -> tuple[IgnoreFile, ...]:
    try:
        return (*files, IgnoreFile.read(path, base))
    except OSError:
        return files


def _unlisted(entry: os.DirEntry[str], path: str, listed: _Listed, *, folder: bool) -> bool:
    if path in listed.files or path in listed.folders:
        return False
    if not folder:
        return True
    # git knows no empty folders; a script may write into one.
    try:
        with os.scandir(entry.path) as inner:
            return next(inner, None) is not None
    except OSError:
        return True


def _add(found: Selection, path: str, entry: os.DirEntry[str]) -> None:
    try:
        readable = os.access(entry.path, os.R_OK, effective_ids=True)
        found.items[path] = Item(path, entry.stat(follow_symlinks=False).st_size)
    except FileNotFoundError:
        return
    except OSError as error:
        found.problems[path] = _unreadable(error.strerror)
        return
    if not readable:
        found.problems[path] = _unreadable("Permission denied")


def _follow(folder: str, links: list[str], found: Selection) -> None:
    """Puts in each link's place what it points at, as far as that itself is packed."""
    kept = dict(found.items)
    order = sorted([*kept, *links])
    pointing = set(links)

    def follow(name: str, link: str, around: tuple[str, ...]) -> None:
        """`name` is the link's path in the package, `around` are the folders that it was reached through."""
        target = os.path.realpath(f"{folder}/{link}")
        is_folder = os.path.isdir(target)
        if is_folder and os.path.exists(f"{target}/pyvenv.cfg"):
            return
        if target != folder and not target.startswith(f"{folder}/"):
            found.problems[link] = (
                f"is a link to {shown(target)}, which is outside of the folder: put what the job needs "
                f"into the folder, or list the link in {OWN_RULES}"
            )
            return
        below = target[len(folder) + 1 :]
        around = (*around, os.path.dirname(link))
        if is_folder and (not below or any(f"{place}/".startswith(f"{below}/") for place in around)):
            found.problems[link] = (
                f"is a link to {shown(below) or 'the folder itself'}, which holds the link, without end: "
                f"list it in {OWN_RULES}"
            )
            return
        inside = list(_below(order, f"{below}/")) if is_folder else []
        for path in inside:
            inner = name + path[len(below) :]
            if path in pointing:
                follow(inner, path, around)
            else:
                found.items[inner] = kept[path]
        if below in kept:
            found.items[name] = kept[below]
        elif not inside:
            found.idle_links.append(link)

    for link in links:
        follow(link, link, ())


def _below(order: list[str], prefix: str) -> Iterator[str]:
    """Of sorted paths, those that start with `prefix`."""
    for index in range(bisect_left(order, prefix), len(order)):
        if not order[index].startswith(prefix):
            return
        yield order[index]


def _unreadable(why: str | None) -> str:
    return f"cannot be read: {why}: give yourself the right to (chmod u+r), or list it in {OWN_RULES}"


def _unfit(path: str) -> str | None:
    """What keeps a name from being unpacked; Ray would leave such files out without a word."""
    if "\\" in path or ntpath.splitdrive(path)[0]:
        what = "a backslash, or a colon as the second character"
    else:
        try:
            path.encode()
            return None
        except UnicodeEncodeError:
            what = "bytes that are no UTF-8"
    return f"has {what}, which does not survive the way: rename it, or list it in {OWN_RULES}"


def shown(name: str) -> str:
    """A file's name for a message: on one line, whatever is in it."""
    return name if name.isprintable() else ascii(name)
