"""Workers that run out of memory: named, tried once more, and not again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from runner import Folder

from dlsys.jobs.launch import memory
from dlsys.track.writer import sync

TWO = ("resources.workers=2", "strategy.name=ddp")
FAULTS = """

def fault(kind):
    os.unlink("fault-struck")  # each attempt has its own
    Mine.steps = 0
    if kind == "limit":
        import resource

        held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + (100 << 20), -1))
        try:
            bytearray(400 << 20)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    if kind == "torch":
        torch.empty(1 << 50)
    if kind == "group":
        folder = os.environ["GROUP"]
        with open(f"{folder}/cgroup.procs", "w") as file:
            file.write(str(os.getpid()))
    bytearray(400 << 20)
"""


@pytest.fixture
def short(folder: Folder) -> Folder:
    with open(folder.path / "mine.py", "a") as file:
        file.write(FAULTS)
    return folder


@pytest.fixture
def group() -> Iterator[Path]:
    """A group of processes that may hold 64 MB; the kernel kills those that take more."""
    places = [
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
    ]
    for place, name in places:
        made = place / f"dlsys-test-{os.getpid()}"
        with suppress(OSError):
            made.mkdir()
            try:
                (made / name).write_text(str(64 << 20))
                yield made
                return
            finally:
                made.rmdir()
    pytest.skip("no memory group of processes can be made here")


@pytest.mark.parametrize("kind", ["limit", "torch"])
def test_no_memory_is_named_and_tried_once_more(kind: str, short: Folder) -> None:
    done = short.dlsys("run", "job.yaml", FAULT=kind, FAULT_STEP="3")
    assert done.code == 1
    assert "out of memory: rank 0 on " in done.err
    assert "(model mine:Mine, batch_size 64)" in done.err
    assert "attempt 2 of 4 starts" in done.err
    assert "attempt 3" not in done.err
    assert "this is the second time, and no further than step 2" in done.err
    assert "Use a smaller batch_size" in done.err
    sync(short.run)  # the writer may still be at it
    (run,) = short.mlflow_runs()
    assert run.info.status == "FAILED"
    assert run.data.tags["dlsys.cause"].startswith("out of memory: rank 0")


@pytest.mark.ray
def test_a_worker_that_the_kernel_kills_for_memory_is_named(group: Path, short: Folder) -> None:
    before = memory.kernel_kills()
    done = short.dlsys(
        "run", "job.yaml", *TWO, FAULT="group", FAULT_STEP="3", FAULT_RANK="1", GROUP=str(group)
    )
    assert memory.kernel_kills() == before + 2, "one in each attempt"
    assert done.code == 1
    assert "out of memory: rank 1 on " in done.err
    assert "the kernel killed it; attempt 2 of 4 starts" in done.err
    assert "attempt 3" not in done.err
    assert "this is the second time" in done.err
    short.assert_alone()


@pytest.mark.ray
@pytest.mark.faults
def test_a_worker_that_is_killed_otherwise_is_not_called_short_of_memory(folder: Folder) -> None:
    overrides = ("failure.retries=0",)
    done = folder.dlsys("run", "job.yaml", *TWO, *overrides, FAULT="kill", FAULT_STEP="3", FAULT_RANK="1")
    assert done.code == 1
    assert "out of memory: rank" not in done.err
