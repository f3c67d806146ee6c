"""What a run keeps of changes that are in no commit."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dlsys.track.record import dirty_diff


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    made = tmp_path / "tree"
    (made / "inner").mkdir(parents=True)
    (made / "code.py").write_text("rate = 1\n")
    (made / "notes.txt").write_bytes(b"caf\xe9 1\n")
    (made / "inner" / "big data.csv").write_text("1\n" * 10)
    git(made, "init", "-q")
    git(made, "add", "-A")
    git(made, "-c", "user.name=n", "-c", "user.email=n@example.invalid", "commit", "-qm", "one")
    return made


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-C", folder, *words], check=True, capture_output=True)


def test_nothing_changed(tree: Path, tmp_path: Path) -> None:
    assert dirty_diff(tree) == ""
    assert dirty_diff(tmp_path) == "", "no work tree"


@pytest.mark.parametrize("place", [".", "inner"])
def test_a_large_file_and_one_of_another_encoding_cost_the_rest_nothing(place: str, tree: Path) -> None:
    (tree / "code.py").write_text("rate = 2\n")
    (tree / "notes.txt").write_bytes(b"caf\xe9 2\n")
    (tree / "inner" / "big data.csv").write_text("2\n" * 10**6)
    kept = dirty_diff(tree / place)
    assert "+rate = 2" in kept
    assert "+caf\ufffd 2" in kept
    assert "# changed, and too large to be kept: inner/big data.csv (2,000,000 bytes)" in kept
    assert len(kept) < 2000


def test_many_changes_are_cut(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlsys.track.record._DIFF", 150)
    (tree / "code.py").write_text("rate = 2\n" * 100)
    kept = dirty_diff(tree)
    assert len(kept) < 250
    assert "characters more" in kept


def test_a_secret_in_a_change_is_masked(tree: Path) -> None:
    (tree / "code.py").write_text('password = "hunter2"\nrate = 2\n')
    kept = dirty_diff(tree)
    assert "hunter2" not in kept
    assert "+rate = 2" in kept


def test_a_deleted_file(tree: Path) -> None:
    (tree / "code.py").unlink()
    assert "-rate = 1" in dirty_diff(tree)
