"""One run that several tests look at, and stores that are made already: to make one takes MLflow seconds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from python_job import JOB

import dlsys
from dlsys.track.store import Store


@pytest.fixture(scope="package")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    Store(f"sqlite:///{path}")
    return path


def wait_for_writers() -> None:
    """On a crowded machine a run ends before all of it is delivered."""
    children = psutil.Process().children()
    psutil.wait_procs([child for child in children if "dlsys.track.writer" in child.cmdline()], timeout=120)


@pytest.fixture
def store(empty_store: Path, home: Path) -> Iterator[None]:
    """An empty store in the home of the test."""
    home.mkdir(exist_ok=True)
    shutil.copy(empty_store, home)
    yield
    wait_for_writers()


@pytest.fixture(scope="package")
def trained(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> dlsys.Run:
    """A run of `JOB`, delivered to MLflow."""
    home = tmp_path_factory.mktemp("trained")
    shutil.copy(empty_store, home)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "RAY_ADDRESS", "DLSYS_STORE"):
            patch.delenv(name, raising=False)
        patch.setenv("DLSYS_HOME", str(home))
        run = dlsys.run(JOB, quiet=True)
    wait_for_writers()
    return run


@pytest.fixture
def there(trained: dlsys.Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of `trained`, which is that of the test."""
    assert trained.folder is not None
    home = trained.folder.parents[1]
    monkeypatch.setenv("DLSYS_HOME", str(home))
    return home
