"""Processes die at every moment; what they leave is whole, and the result is the same."""

from __future__ import annotations

import json
import multiprocessing
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from harness import assert_equal
from runner import Folder

from dlsys.errors import CheckpointError
from dlsys.train.checkpoint import CheckpointStore, Position, Saved
from dlsys.train.checkpoint.store import verify

pytestmark = pytest.mark.faults
TWO = ("resources.workers=2", "strategy.name=ddp")


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """An uninterrupted run of one worker."""
    folder = Folder(tmp_path_factory.mktemp("one"))
    assert folder.dlsys("run", "job.yaml").code == 0
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """An uninterrupted run of two workers."""
    folder = Folder(tmp_path_factory.mktemp("two"))
    assert folder.dlsys("run", "job.yaml", *TWO).code == 0
    return folder


@pytest.mark.parametrize("moment", range(20))
def test_the_driver_dies_at_any_moment_and_is_relaunched_at_once(
    moment: int, one: Folder, folder: Folder
) -> None:
    """From before the first import until after the last step: one owner, the same weights."""
    process = folder.start("run", "job.yaml", STEP_SECONDS="0.03")
    runs = folder.path / ".dlsys" / "runs"
    folder.wait_for(lambda: runs.is_dir() and any(runs.glob("*/owner.json")))
    time.sleep(random.Random(moment).uniform(0, 6))
    process.kill()
    process.wait()
    done = folder.dlsys("run", "--resume", "mine")
    assert done.code == 0, done.err
    assert_equal(one.weights(), folder.weights())
    assert folder.history("train/loss") == one.history("train/loss")
    assert json.loads(folder.run.owner.read_text())["fence"] == 2
    folder.assert_alone()


@pytest.mark.ray
@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize(("fault", "step"), [("kill", "1"), ("segv", "24"), ("exit", "35"), ("kill", "68")])
def test_each_rank_dies_in_each_way(fault: str, step: str, rank: str, two: Folder, folder: Folder) -> None:
    done = folder.dlsys("run", "job.yaml", "--json", *TWO, FAULT=fault, FAULT_STEP=step, FAULT_RANK=rank)
    assert done.code == 0, done.err
    assert json.loads(done.out)["attempts"] == 2
    assert_equal(two.weights(), folder.weights())
    assert folder.history("train/loss") == two.history("train/loss")
    folder.assert_alone()


def save_for_ever(folder: str) -> None:
    store = CheckpointStore(Path(folder), keep=2)
    store.tidy()
    last = store.latest()
    step = last.position.step if last else 0
    while True:
        step += 1
        weights = {"w": torch.full((100, 100), float(step))}
        store.save(Saved(Position(step), weights, {}), best=step % 3 == 0)


def test_a_hundred_kills_while_saving(tmp_path: Path) -> None:
    """kill -9 at random moments of saving: never a torn checkpoint, never a lost one."""
    chance = random.Random(7)
    before = 0
    # Forked, because importing torch a hundred times takes minutes; tensors are too small for
    # torch's threads, which do not survive a fork.
    context = multiprocessing.get_context("fork")
    for _ in range(100):
        process = context.Process(target=save_for_ever, args=(str(tmp_path),))
        process.start()
        time.sleep(chance.uniform(0.05, 0.25))
        process.kill()
        process.join()
        notes: list[str] = []
        store = CheckpointStore(tmp_path, note=notes.append)
        for path in store.list():
            verify(path)
        saved = store.latest()
        if saved is None:
            continue
        assert not notes, notes
        assert saved.position.step >= before
        assert bool((saved.model["w"] == saved.position.step).all())
        before = saved.position.step
    assert before > 100


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(place)], capture_output=True)
    if made.returncode:
        pytest.skip(f"cannot mount a file system here: {made.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_told_and_survived(small_disk: Path, one: Folder, folder: Folder) -> None:
    """Checkpoints, spool and records are on the full disk; the last good checkpoint is whole."""
    home = str(small_disk / ".dlsys")
    uri = f"tracking.uri=sqlite:///{folder.path}/elsewhere.db"
    process = folder.start("run", "job.yaml", uri, DLSYS_HOME=home, STEP_SECONDS="0.03")
    folder.wait_for(lambda: len(list(small_disk.glob(".dlsys/runs/*/checkpoints/step-*"))) >= 2)
    (run,) = (small_disk / ".dlsys" / "runs").iterdir()
    filler = small_disk / "filler"
    with open(filler, "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 1024)
        except OSError:
            pass
    done = folder.finish(process)
    assert done.code == 1
    assert "No space left on device" in done.err
    assert "Traceback" not in done.err
    for path in CheckpointStore(run / "checkpoints").list():
        try:
            verify(path)
        except CheckpointError as error:
            raise AssertionError(f"a torn checkpoint: {error}") from error
    filler.unlink()
    done = folder.dlsys("run", "--resume", "mine", DLSYS_HOME=home)
    assert done.code == 0, done.err
    saved = CheckpointStore(run / "checkpoints").latest()
    assert_equal(one.weights(), saved.model)
