"""Which files of a folder are ignored, as git decides it.

Where git itself can tell, it is asked. Its rules are also kept here, for folders that are in no work tree
and for `.dlsysignore`: pathspec translates the patterns (classes such as `[[:alpha:]]` it does not know), and
`verdict` asks them as git does, for each file and folder on its own, from the deepest ignore file up
(https://git-scm.com/docs/gitignore).
"""

from __future__ import annotations

import os
import re
import subprocess
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# In a hook, these say which work tree git is to look at; it is asked about another.
_GIT_OWN = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")
_LIST = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")


@dataclass(frozen=True)
class Pattern:
    """One line of an ignore file.

    Attributes:
        ignores: False for a line with `!`, which brings back.
        folders_only: the line ends with a slash.
        by_name: the line has no other slash: it is held against the last part of a path.
        regex: matches the whole of what it is held against.
    """

    ignores: bool
    folders_only: bool
    by_name: bool
    regex: re.Pattern[str]


@dataclass(frozen=True)
class IgnoreFile:
    """The patterns of one ignore file, for what is below `base`, the absolute path of its folder."""

    base: str
    patterns: tuple[Pattern, ...]

    @classmethod
    def read(cls, path: str, base: str) -> IgnoreFile:
        """Raises OSError."""
        text = Path(path).read_bytes().decode("utf-8-sig", "surrogateescape")
        lines = (line.removesuffix("\r") for line in text.split("\n"))
        return cls(base, tuple(filter(None, map(_pattern, lines))))

    @property
    def brings_back(self) -> bool:
        return any(not pattern.ignores for pattern in self.patterns)


def verdict(files: Sequence[IgnoreFile], path: str, *, folder: bool) -> bool | None:
    """Whether these ignore files, the deepest one last, ignore `path`; None where no line is about it.

    What lies in an ignored folder is not looked up here: it is ignored with it.
    """
    name = path[path.rfind("/") + 1 :]
    for file in reversed(files):
        below = path[len(file.base) + 1 :]
        for pattern in reversed(file.patterns):
            if (folder or not pattern.folders_only) and pattern.regex.fullmatch(
                name if pattern.by_name else below
            ):
                return pattern.ignores
    return None


def _pattern(line: str) -> Pattern | None:
    if line.startswith("#"):
        return None
    line = re.sub(r"(?<!\\) +$", "", line)
    glob = line.removeprefix("!")
    core = glob.removesuffix("/")
    folders_only = core != glob
    # `x/**` is whatever is in x, and `**/x` is `x` anywhere.
    core = re.sub(r"/\*\*$", "/**/*", core)
    core = re.sub(r"^/?(\*\*/)+(?=[^/]+$)", "", core)
    by_name = "/" not in core
    if by_name:
        core = re.sub(r"\*+", "*", core)
    if not core:
        return None
    # Takes 20 ms, and most folders are git's.
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

    try:
        regex, _ = GitIgnoreSpecPattern.pattern_to_regex("/" + core.removeprefix("/"))
        with warnings.catch_warnings(action="ignore"):  # Python may one day read `[[]` in another way
            # DOTALL: names may have line breaks.
            compiled = None if regex is None else re.compile(regex, re.DOTALL)
    except (ValueError, re.error):
        compiled = None
    # What is no sound pattern matches nothing, as in git.
    return compiled and Pattern(line == glob, folders_only, by_name, compiled)


def git_files(folder: str) -> set[str] | None:
    """What git tracks in `folder`, and what it would: relative paths; None where git can't tell.

    Files that are deleted but not yet forgotten are among them; other repositories are one entry each.
    """
    places = (folder, *map(str, Path(folder).parents))
    if not any(os.path.exists(os.path.join(place, ".git")) for place in places):
        return None
    environment = {name: value for name, value in os.environ.items() if name not in _GIT_OWN}
    try:
        # In a folder that is ignored as a whole, git would list nothing, yet it is to be packed.
        if not os.path.exists(os.path.join(folder, ".git")):
            asked = ("git", "check-ignore", "--quiet", ".")
            if subprocess.run(asked, cwd=folder, env=environment, capture_output=True).returncode == 0:
                return None
        done = subprocess.run(_LIST, cwd=folder, env=environment, capture_output=True)
    except OSError:  # there is no git
        return None
    if done.returncode:
        return None
    return {os.fsdecode(name).removesuffix("/") for name in done.stdout.split(b"\0") if name}
