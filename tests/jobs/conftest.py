from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from folders import Packing
from object_store import Server, server
from runner import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    """A user's working directory; whatever runs in it ends with the test."""
    made = Folder(tmp_path)
    yield made
    made.clean()


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be packed, with nothing in it."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    made = tmp_path / "work"
    made.mkdir()
    return made


@pytest.fixture
def packing(tmp_path: Path) -> Packing:
    return Packing(tmp_path)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An S3 server of this session's."""
    with server(tmp_path_factory.mktemp("s3") / "log") as made:
        yield made


@pytest.fixture
def store(s3: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty object store."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return s3.make(f"b{secrets.token_hex(8)}")
