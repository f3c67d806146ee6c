"""A sqlite store is created once; nobody waits for that again."""

from __future__ import annotations

import fcntl
from pathlib import Path

from dlsys.track.store import Store, is_made


def test_who_comes_later_waits_for_nobody(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert not is_made(uri)
    Store(uri)
    assert is_made(uri)
    with open(tmp_path / ".mlflow.db.lock", "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as a writer at the lowest priority that is looking at it
        assert Store(uri).experiment("default")


def test_another_store_in_its_place_or_another_mlflow_is_looked_at(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    Store(uri)
    lock = tmp_path / ".mlflow.db.lock"
    made = lock.read_text()
    lock.write_text(f"1.0 {made.split()[1]}")
    assert not is_made(uri)
    Store(uri)
    assert lock.read_text() == made
    (tmp_path / "mlflow.db").rename(tmp_path / "kept.db")
    assert not is_made(uri)
    (tmp_path / "mlflow.db").touch()
    assert not is_made(uri)
    Store(uri)
    assert is_made(uri)


def test_a_server_needs_no_creation() -> None:
    assert is_made("http://127.0.0.1:5000")
