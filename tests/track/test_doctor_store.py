"""What `dlsys doctor` says of the store: a real one, damaged ones, and servers."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dlsys.jobs.doctor.store import tracking
from dlsys.track.address import sqlite_path


@pytest.fixture
def path(uri: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The usual store, a file."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    found = sqlite_path(uri)
    assert found is not None
    return found


def told() -> tuple[str, str]:
    (finding,) = tracking()
    return finding.state, finding.what


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as base, base:
        base.execute(statement)


def test_a_good_one_is_left_as_it_is(path: Path) -> None:
    before = path.read_bytes()
    assert told() == ("ok", f"{path} can be read and written, and has 0 runs and trials")
    assert path.read_bytes() == before


def test_one_that_is_not_there_yet(path: Path) -> None:
    path.unlink()
    assert told()[0] == "ok"
    assert not path.exists()


@pytest.mark.parametrize("content", [b"no database", b""])
def test_one_that_is_none(content: bytes, path: Path) -> None:
    path.write_bytes(content * 100)
    state, what = told()
    assert (state, "cannot be read as an MLflow store" in what) == ("wrong", True)


def test_schemas(path: Path) -> None:
    change(path, "UPDATE alembic_version SET version_num = '451aebb31d03'")
    assert told() == ("warning", f"{path} is of an earlier MLflow")
    change(path, "UPDATE alembic_version SET version_num = 'ffffffffffff'")
    assert told() == ("wrong", f"{path} is of a newer MLflow (schema ffffffffffff)")


def test_one_that_is_locked(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert told() == ("warning", f"{path}: database is locked")
        other.rollback()
    assert told()[0] == "ok"


def test_an_address_that_can_never_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    assert told()[0] == "wrong"


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    """Answers `/NUMBER/version` with that status."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, _, what = self.path.lstrip("/").partition("/")
            self.send_response(int(status) if what == "version" else 500)
            self.end_headers()
            self.wfile.write(b"3.17.2")

        def log_message(self, *words: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "state", "said"),
    [(200, "ok", "MLflow '3.17.2'"), (401, "ok", "asks who"), (404, "wrong", "404")],
)
def test_a_server(
    status: int, state: str, said: str, server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"127.0.0.1:{server.server_port}/{status}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@{place}/")
    found = told()
    assert found[0] == state
    assert found[1].startswith(f"http://{place} ")
    assert said in found[1]


def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert told() == ("wrong", "http://127.0.0.1:1 does not answer: [Errno 111] Connection refused")
