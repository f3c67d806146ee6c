"""Hygiene for every test: its own DLSYS_HOME, no leaked thread, process, variable or handler."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import shares

ROOT = Path(__file__).parent.parent
# Several tests run at a time: each process, and what it starts, computes with one thread.
os.environ["OMP_NUM_THREADS"] = "1"
# cv2 adds itself to LD_LIBRARY_PATH.
_MAY_CHANGE = {"PYTEST_CURRENT_TEST", "HYPOTHESIS_STORAGE_DIRECTORY", "LD_LIBRARY_PATH"}
_MAY_APPEAR = (
    "RAY_",
    "MLFLOW_",
    "GIT_PYTHON_REFRESH",
    "KMP_",
    "TORCHINDUCTOR_",
    "ARROW_",
    "TF_",
    "CUDA_",
    "PYGAME_",
    "MUJOCO_GL",
    "PYOPENGL_",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> shares.Shares:
    """Deals out the tests to pytest's processes."""
    return shares.Shares(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    told = "only the quickest files, that take so many seconds by tests/durations.md"
    parser.addoption("--within", type=float, metavar="SECONDS", help=told)


# What starts drivers, clusters and writers, and waits for them as a user would, has both cores to itself:
# beside other tests it would wait for those, and some of its patience is the product's own.
_ALONE = ("tests/api/", "tests/jobs/", "tests/track/", "tests/faults/", "tests/test_docs.py")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks what runs alone, and brings the tests of a process that shares the suite into the order in
    which they are dealt out."""
    for item in items:
        if item.nodeid.startswith(_ALONE) or item.get_closest_marker("ray"):
            item.add_marker("alone")
    within = config.getoption("--within")
    if within is not None:
        chosen = shares.quickest([item.nodeid for item in items], within)
        config.hook.pytest_deselected(items=[i for i in items if shares.group(i.nodeid) not in chosen])
        items[:] = [item for item in items if shares.group(item.nodeid) in chosen]
    if hasattr(config, "workerinput"):
        place = {nodeid: i for i, nodeid in enumerate(shares.longest_first([i.nodeid for i in items]))}
        items.sort(key=lambda item: place[item.nodeid])


def pytest_collection_finish() -> None:
    """What was imported is no garbage: each training run looks for its own."""
    gc.freeze()


@pytest.fixture(autouse=True)
def home(hygiene: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs of a test stay in its own folder."""
    for name in (
        "MLFLOW_TRACKING_URI",
        "MLFLOW_EXPERIMENT_NAME",
        "RAY_ADDRESS",
        "DLSYS_STORE",
        "DLSYS_NOTIFY",
    ):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / ".dlsys"
    monkeypatch.setenv("DLSYS_HOME", str(folder))
    return folder


@pytest.fixture(autouse=True)
def hygiene() -> Iterator[None]:
    """Fails a test that leaves something of dlsys's behind."""
    environment = dict(os.environ)
    interrupt = signal.getsignal(signal.SIGINT)
    yield
    leaked = [t.name for t in threading.enumerate() if t.name.startswith("dlsys-") and t.is_alive()]
    changed = {
        name
        for name in environment.keys() | os.environ.keys()
        if environment.get(name) != os.environ.get(name)
        and name not in _MAY_CHANGE
        and not name.startswith(_MAY_APPEAR)
    }
    writers = [
        process.pid
        for process in psutil.Process().children(recursive=True)
        if "dlsys.track.writer" in _command(process)
    ]
    for pid in writers:
        psutil.Process(pid).kill()
    assert not leaked, f"threads left: {leaked}"
    assert not changed, f"environment changed: {changed}"
    assert not writers, f"writer processes left: {writers}"
    assert signal.getsignal(signal.SIGINT) is interrupt, "the SIGINT handler was not put back"


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.fixture(scope="session", autouse=True)
def workers() -> Iterator[None]:
    """Ends the processes that `harness` and `forking` keep."""
    yield
    if "harness" in sys.modules:
        sys.modules["harness"].POOL.close()
    if "forking" in sys.modules:
        sys.modules["forking"].SERVER.close()


@pytest.fixture
def interpreters(monkeypatch: pytest.MonkeyPatch) -> None:
    """`runner.Folder` starts interpreters, no forks."""
    from runner import Folder

    monkeypatch.setattr(Folder, "forks", False)


@pytest.fixture
def root() -> Path:
    """The repository."""
    return ROOT
