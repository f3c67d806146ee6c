"""What is ignored: what git says, and the same where git cannot be asked."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from folders import Packing, fill, git, ignore, repository
from hypothesis import given, settings
from hypothesis import strategies as st

from dlsys.jobs.selection import select


class TestGit:
    """Inside of a work tree, git is asked."""

    def test_index_work_tree_and_excludes(self, work: Path, packing: Packing) -> None:
        ignore(work, "*.log\nbuild/\n")
        fill(work, "kept.log", "a.py", "deleted.py", "sub/b.py")
        git(work, "init", "--quiet")
        git(work, "add", "--force", ".")
        fill(work, "new.py", "new.log", "build/x", "mine.txt", "sub/c.py", "empty/", "sub/none/")
        ignore(work / ".git" / "info", "mine.txt\n", "exclude")
        ignore(work / "sub", "c.py\n")
        (work / "deleted.py").unlink()
        names = {
            ".gitignore",
            "kept.log",
            "a.py",
            "sub/b.py",
            "new.py",
            "sub/.gitignore",
            "empty/",
            "sub/none/",
        }
        assert packing.names(work) == names

    def test_a_folder_inside_of_a_work_tree(self, work: Path, packing: Packing) -> None:
        ignore(work, "*.log\n/exp/data/\n/a\n")
        fill(work, "top.py", "exp/a", "exp/x.log", "exp/data/x", "exp/lib/b", "other/c")
        repository(work)
        assert packing.names(work / "exp") == {"a", "lib/b"}

    def test_a_folder_that_is_ignored_as_a_whole(self, work: Path, packing: Packing) -> None:
        ignore(work, "*\n")
        fill(work, "exp/a", "exp/b/x.log")
        ignore(work / "exp", "*.log\n")
        repository(work)
        assert packing.names(work / "exp") == {"a", ".gitignore"}

    def test_other_repositories_inside(self, work: Path, packing: Packing, tmp_path: Path) -> None:
        library = tmp_path / "library"
        fill(library, "lib.py", "deep/x.py", "x.log")
        ignore(library, "*.log\n")
        repository(library)
        fill(work, "a.py", "x.log")
        repository(work)
        git(work, "submodule", "--quiet", "add", str(library), "vendor/lib")
        fill(work, "vendor/lib/new.py", "vendor/lib/new.log", "vendor/lib/empty/")
        fill(work, "clone/b.py", "clone/deep/c.py")
        git(work / "clone", "init", "--quiet")
        fill(work, "clone/inner/d.py")
        git(work / "clone" / "inner", "init", "--quiet")
        mine = {"a.py", "x.log", ".gitmodules", "clone/b.py", "clone/deep/c.py", "clone/inner/d.py"}
        theirs = {f"vendor/lib/{name}" for name in ("lib.py", "deep/x.py", ".gitignore", "new.py", "empty/")}
        assert packing.names(work) == mine | theirs
        ignore(work, "vendor/lib/deep/\nclone/*/\n", ".dlsysignore")
        left = {"clone/deep/c.py", "clone/inner/d.py", "vendor/lib/deep/x.py"}
        assert packing.names(work) == (mine | theirs | {".dlsysignore"}) - left

    def test_a_submodule_that_was_never_fetched(self, work: Path, packing: Packing, tmp_path: Path) -> None:
        fill(tmp_path, "library/lib.py")
        repository(tmp_path / "library")
        repository(work)
        git(work, "submodule", "--quiet", "add", str(tmp_path / "library"), "lib")
        git(work, "commit", "--quiet", "--message", "with a library")
        git(tmp_path, "clone", "--quiet", str(work), "clone")
        fill(tmp_path / "clone", "a.py")
        assert packing.names(tmp_path / "clone") == {".gitmodules", "a.py", "lib/"}
        fill(tmp_path / "clone" / "lib", "by_hand.py")
        assert packing.names(tmp_path / "clone") == {".gitmodules", "a.py", "lib/by_hand.py"}

    def test_in_a_hook(self, work: Path, packing: Packing, monkeypatch: pytest.MonkeyPatch) -> None:
        fill(work, "other/b.py", "mine/kept.log")
        repository(work / "other")
        repository(work / "mine")
        ignore(work / "mine", "*.log\n")
        monkeypatch.setenv("GIT_DIR", str(work / "other" / ".git"))
        monkeypatch.setenv("GIT_INDEX_FILE", str(work / "other" / ".git" / "index"))
        assert packing.names(work / "mine") == {"kept.log", ".gitignore"}


# Lines of ignore files, and what they are to be held against.
CASES = [
    "*.tmp",
    "/a",
    "a/b",
    "a/",
    "data/*\n!data/keep",
    "data/\n!data/keep",
    "data/**\n!data/**/\n!keep",
    "/*\n!/data/",
    "*\n!*/\n!*.py",
    "**/b",
    "a/**/b",
    "**/a/*.tmp",
    "**/",
    "x.[ct]*",
    "x.[!a-p]mp",
    "[[]a",
    "?",
    "\\#x\n#x\n\\!y",
    "  a",
    "a  ",
    "x\\ ",
    "a\r\nb\r\n",
    "\ufeffa",
    "x\\",
    "[a",
    "[z-a]",
    "a//b",
    "//a",
    "!",
    "/",
    "data/sub\n!sub",
    "d*a/**",
    "data/**/x.tmp",
    "a\n!a\na/b",
    "ü*",
]
PATHS = [
    *("a", "b", "x.tmp", "x.py", "#x", "!y", "x ", " a", "x\\", "[a", "ü.py"),
    *("data/a", "data/keep", "data/x.tmp", "data/sub/keep", "data/sub/a/b", "data/sub/x.tmp", "data/x.py"),
    *(
        "sub/a/b",
        "sub/b/a/x.tmp",
        "sub/data/keep",
        "sub/data/a",
        "sub/deep/a/q/b",
        "sub/x.cfg",
        "line\nbreak/b",
    ),
]


@pytest.fixture
def without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")


class TestIgnoreFiles:
    """Where git can't be asked, the answer is the one that git would give."""

    @pytest.mark.parametrize("text", CASES)
    @pytest.mark.parametrize("where", ["", "data", "sub"])
    @pytest.mark.parametrize("name", [".gitignore", ".dlsysignore"])
    def test_as_git(self, name: str, where: str, text: str, work: Path) -> None:
        fill(work, *PATHS)
        if "\na" in text or text.startswith("a"):
            (work / "a").unlink()
            fill(work, "a/b", "a/x.tmp", "a/c/b")
        ignore(work / where, text, name)
        assert chosen(work) == listed(work, name)

    @settings(max_examples=100, deadline=None)
    @given(data=st.data())
    def test_any_as_git(self, data: st.DataObject) -> None:
        part = st.sampled_from(["a", "b", "c", "*", "**", "a*", "?", "[ab]", "[!a]", "*c"])
        line = st.builds(
            lambda no, top, parts, end: no + top + "/".join(parts) + end,
            *(st.sampled_from(["", "", "!"]), st.sampled_from(["", "", "/"])),
            *(st.lists(part, min_size=1, max_size=3), st.sampled_from(["", "", "/"])),
        )
        name = st.sampled_from("abc")
        paths = data.draw(st.lists(st.lists(name, min_size=1, max_size=4), min_size=1, max_size=12))
        texts = data.draw(st.dictionaries(st.sampled_from(["", "a", "a/b", "b"]), st.lists(line, max_size=4)))
        with tempfile.TemporaryDirectory() as place:
            work = Path(place)
            for parts in paths:
                path = work.joinpath(*parts)
                if not any(parent.is_file() for parent in path.parents) and not path.exists():
                    fill(work, "/".join(parts))
            for kind in (".gitignore", ".dlsysignore"):
                for where, lines in texts.items():
                    if (work / where).is_dir():
                        ignore(work / where, "\n".join(lines), kind)
                assert chosen(work) == listed(work, kind)
                for old in work.rglob(kind):
                    old.unlink()

    def test_excludes_of_the_repository(self, work: Path, without_git: None) -> None:
        fill(work, "a", "b", "c", "sub/a")
        ignore(work / ".git" / "info", "a\nb\n", "exclude")
        ignore(work, "!b\n")
        assert chosen(work) == {"b", "c", ".gitignore"}

    @pytest.mark.parametrize("in_git", [False, True])
    def test_the_own_file_outranks_the_others(self, in_git: bool, work: Path) -> None:
        fill(work, "a.py", "data/x", "data/y", "data/deep/z", "data/deep/w", "out/keep/a", "out/b", "c.log")
        ignore(work, "data/\nout/\n*.log\n")
        ignore(work, "!data/\n/data/y\n!out/keep/a\na.py\n", ".dlsysignore")
        ignore(work / "data" / "deep", "w\n", ".dlsysignore")
        if in_git:
            repository(work)
        files = {
            ".gitignore",
            ".dlsysignore",
            "data/x",
            "data/deep/z",
            "data/deep/.dlsysignore",
            "out/keep/a",
        }
        assert chosen(work) == files
        assert set(select(str(work), frozenset()).items) == files


def chosen(work: Path) -> set[str]:
    found = select(os.path.realpath(work), frozenset())
    return {name for name in found.items if not name.endswith("/")}


def listed(work: Path, name: str) -> set[str]:
    """What git finds in a copy of the folder that is a repository, by the ignore files of one name."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "copy"
        shutil.copytree(work, copy)
        git(copy, "init", "--quiet")
        return set(git(copy, "ls-files", "-z", "--others", f"--exclude-per-directory={name}").split("\0")) - {
            ""
        }
