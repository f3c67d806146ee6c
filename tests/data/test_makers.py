"""Processes make the very batches that training would make itself, and leave nothing behind."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from harness import assert_equal, job, train, with_workers

from dlsys.data import TensorDataset, makers
from dlsys.data.augment import augment
from dlsys.data.images.normalize import Scaling
from dlsys.data.loader import Loader, MicroBatch, StepBatch
from dlsys.data.makers import made_by
from dlsys.data.mixing import mixed
from dlsys.data.order import Order
from dlsys.data.parcel import pack, unpack
from dlsys.errors import DataError, SpecError, UsageError, WorkerDiedError
from dlsys.own.frames import user_traceback
from dlsys.processes import lives
from dlsys.spec.train.regularizer import DataAugmentation

IMAGES = TensorDataset({"image": torch.rand(50, 3, 6, 5), "label": torch.arange(50)})
VARIED = DataAugmentation(name="data-augmentation", flip=True, shift=2, noise=0.1, mixup=0.4)


def varied(rank: int = 0, size: int = 1) -> Loader:
    return Loader(
        IMAGES,
        Order(50, 8, "shuffled", 3),
        rank=rank,
        size=size,
        micro=2,
        vary=partial(augment, options=VARIED),
        mix=partial(mixed, options=VARIED, classes=50),
        scale=Scaling((0.5, 0.4, 0.3), (0.2, 0.2, 0.2)),
    )


def plain(dataset: object, batch: int = 10) -> Loader:
    return Loader(dataset, Order(len(dataset), batch, "sequential"))


@contextmanager
def making(loader: Loader, workers: int = 2, prefetch: int = 0) -> Iterator[list[int]]:
    """Its processes' ids; they are gone afterwards."""
    before = {child.pid for child in psutil.Process().children()}
    with made_by({"train": loader}, workers=workers, prefetch=prefetch):
        pids = [child.pid for child in psutil.Process().children() if child.pid not in before]
        assert len(pids) == workers
        yield pids
    assert not [pid for pid in pids if lives(pid)]


def same(first: StepBatch, second: StepBatch) -> bool:
    assert first.rows == second.rows
    for one, other in zip(first.micros, second.micros, strict=True):
        assert (one.weight, one.real) == (other.weight, other.real)
        assert list(one.batch) == list(other.batch), "fields in the same order"
        for name, tensor in one.batch.items():
            there = other.batch[name]
            assert (tensor.dtype, tensor.stride()) == (there.dtype, there.stride())
            assert torch.equal(tensor, there)
    return True


@pytest.mark.parametrize(("workers", "prefetch"), [(0, 0), (1, 0), (2, 0), (3, 0), (1, 1), (2, 5), (3, 99)])
def test_the_same_batches_bit_for_bit(workers: int, prefetch: int) -> None:
    """Of two workers, two micro-batches each, an uneven last step, from the start and from the middle."""
    truth = varied()
    loader = varied()
    with making(loader, workers, prefetch):
        for rank in range(2):
            mine, theirs = loader.placed(rank, 2), truth.placed(rank, 2)
            for epoch, start in ((0, 0), (1, 0), (1, 5), (0, 6)):
                pairs = zip(mine.epoch(epoch, start), theirs.epoch(epoch, start), strict=True)
                assert sum(same(*pair) for pair in pairs) == 7 - start
    assert loader.ahead is None


def test_an_evaluation_within_an_epoch_and_an_epoch_that_is_left() -> None:
    train, valid = varied(), plain(IMAGES)
    whole, measured = list(train.epoch(0)), list(valid.epoch(0))
    with made_by({"train": train, "valid": valid}, workers=2, prefetch=4):
        for number, batch in enumerate(train.epoch(0)):
            assert same(batch, whole[number])
            if number in (1, 2):
                assert all(map(same, valid.epoch(0), measured))
            if number == 3:
                break
        assert all(map(same, train.epoch(0, 2), whole[2:]))
        assert all(map(same, valid.epoch(0), measured))


def test_batches_outlive_the_processes() -> None:
    loader, truth = varied(), list(varied().epoch(0))
    with making(loader):
        kept = list(loader.epoch(0))
    assert all(map(same, kept, truth))
    kept[0].micros[0].batch["image"] += 1  # nobody else's memory
    assert same(kept[1], truth[1])


class Spoilt(TensorDataset):
    def batch(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        if 31 in rows:
            self.spoil()
        return super().batch(rows)

    def spoil(self) -> None:
        raise DataError("pictures/31.jpg: cannot be decoded", hint="mend it")


class NeedsTwo(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def reached(loader: Loader, error: type[Exception], **making_with: int) -> tuple[list[int], Exception]:
    """The first rows of the batches before an error, and the error."""
    came: list[int] = []
    with making(loader, **making_with), pytest.raises(error) as raised:
        came.extend(int(step.micros[0].batch["label"][0]) for step in loader.epoch(0))
    return came, raised.value


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_an_error_arrives_at_its_step(workers: int) -> None:
    came, error = reached(plain(Spoilt(IMAGES.fields)), DataError, workers=workers)
    assert came == [0, 10, 20]
    assert (str(error), error.hint) == ("pictures/31.jpg: cannot be decoded", "mend it")


@pytest.mark.parametrize(
    ("raised", "arrives"), [(KeyError("pixel"), KeyError), (NeedsTwo(1, 2), RuntimeError)]
)
def test_an_error_of_the_users_code_keeps_its_traceback(
    raised: Exception, arrives: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(self: Spoilt) -> None:
        raise raised

    monkeypatch.setattr(Spoilt, "spoil", spoil)
    came, error = reached(plain(Spoilt(IMAGES.fields)), arrives)
    assert came == [0, 10, 20]
    assert "pixel" in str(error) or str(error) == "NeedsTwo: 1 and 2"
    assert "raise raised" in user_traceback(error)
    assert "raise raised" in error.__notes__[0]


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "was killed by SIGKILL"),
        (lambda: os._exit(3), "exited with status 3"),
    ],
)
def test_a_process_that_dies_is_told(end, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Spoilt, "spoil", lambda self: end())
    came, error = reached(plain(Spoilt(IMAGES.fields)), WorkerDiedError)
    assert came == [0, 10, 20]
    assert said in str(error)
    assert str(error).startswith("a process that makes batches (data.workers, pid ")


def test_a_process_that_is_killed_between_batches_is_told() -> None:
    loader = plain(IMAGES, 2)
    with making(loader) as pids:
        batches = loader.epoch(0)
        next(batches)
        os.kill(pids[0], signal.SIGKILL)
        with pytest.raises(WorkerDiedError, match=f"pid {pids[0]}"):
            list(batches)


def test_signals_to_the_whole_group_leave_them_to_training() -> None:
    loader = plain(IMAGES, 5)
    with making(loader) as pids:
        batches = loader.epoch(0)
        next(batches)
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGINT)
        assert len(list(batches)) == 9


def _orphan(pipe) -> None:
    multiprocessing.current_process().daemon = False
    with making(plain(IMAGES)) as pids:
        pipe.send(pids)
        time.sleep(60)


def test_they_die_with_their_parent() -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_orphan, args=(theirs,), daemon=True)
    process.start()
    pids = ours.recv()
    process.kill()
    process.join()
    deadline = time.monotonic() + 10
    while any(map(lives, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not [pid for pid in pids if lives(pid)]


def _daemonic(pipe) -> None:
    try:
        with made_by({"train": varied()}, workers=1, prefetch=0):
            pass
    except UsageError as error:
        pipe.send(str(error))


def test_a_daemonic_process_is_refused() -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_daemonic, args=(theirs,), daemon=True)
    process.start()
    assert ours.recv().startswith("data.workers: dlsys runs in a daemonic process")
    process.join()


class Locked(TensorDataset):
    """Waits, in the first process that is forked alone, for a lock that another thread held at that time."""

    def __init__(self, forked: Path) -> None:
        super().__init__(IMAGES.fields)
        self.here, self.forked = os.getpid(), forked

    def batch(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        if os.getpid() != self.here and not self.forked.exists():
            self.forked.touch()
            threading.Event().wait()
        return super().batch(rows)


def test_a_process_that_was_forked_beside_a_lock_gives_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(makers, "_PATIENCE", 0.5)
    loader = plain(Locked(tmp_path / "forked"))
    with making(loader, 1):
        assert all(map(same, loader.epoch(0), plain(IMAGES).epoch(0)))
    assert (tmp_path / "forked").exists()


def test_making_a_row_beforehand_draws_no_numbers_of_trainings() -> None:
    before = torch.get_rng_state(), random.getstate()
    with making(plain(Drawing(IMAGES.fields))):
        assert torch.equal(torch.get_rng_state(), before[0])
        assert random.getstate() == before[1]


class Drawing(TensorDataset):
    def batch(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        drawn = [torch.rand(()).item(), np.random.random(), random.random()]
        return {**super().batch(rows), "drawn": torch.tensor([drawn] * len(rows))}


def test_what_a_data_set_draws_depends_on_the_batch() -> None:
    def drawn(workers: int, start: int = 0) -> list[list[float]]:
        loader = plain(Drawing(IMAGES.fields))
        with making(loader, workers):
            return [step.micros[0].batch["drawn"][0].tolist() for step in loader.epoch(0, start)]

    found = drawn(2)
    assert len({number for step in found for number in step}) == 15
    assert drawn(3, start=2) == found[2:]


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6, dtype=torch.int32).view(2, 3),
        torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.rand(4, 6)[:, ::2],
        torch.tensor([[1.5], [2.5]]).expand(2, 7),
        torch.rand(3, 5).to(torch.bfloat16),
        torch.rand(3) > 0.5,
        torch.rand(3, dtype=torch.complex64),
        torch.empty(2, 0),
        torch.tensor(4.0),
    ],
    ids=lambda tensor: f"{tensor.dtype}{list(tensor.shape)}",
)
def test_any_tensor_travels(tensor: torch.Tensor) -> None:
    batch = StepBatch([MicroBatch({"odd": torch.ones(3, dtype=torch.uint8), "x": tensor}, 0.5, 2)], 4)
    found = unpack(*pack(batch))
    assert (found.rows, found.micros[0].weight, found.micros[0].real) == (4, 0.5, 2)
    there = found.micros[0].batch["x"]
    assert there.dtype == tensor.dtype
    assert there.stride() == torch.empty_like(tensor).stride()
    assert torch.equal(there, tensor)


TRAINED = """
kind: train
name: test
workload: lenet-5
data: {source: digits, size: 32}
batch_size: 400
optimizer: {name: sgd, lr: 0.1}
regularize: [{name: data-augmentation, shift: 2, noise: 0.1}]
gradient: {accumulate: 2}
stop: {epochs: 2}
evaluate: 2 steps
tracking: {log_every: 1}
"""


@pytest.mark.parametrize("more", [(), ("precision=fp64",), ("resources.workers=2", "strategy.name=ddp")])
def test_training_is_the_same_and_goes_on(more: tuple[str, ...], tmp_path: Path) -> None:
    before = len(psutil.Process().children())
    truth = with_workers(job(TRAINED, *more), tmp_path / "truth")
    made = job(TRAINED, *more, "data.workers=2")
    stopped = with_workers(made, tmp_path / "made", stop_after=2)
    assert stopped.result.position.step_in_epoch
    found = with_workers(made, tmp_path / "made")
    assert_equal(found.weights, truth.weights)
    assert found.result.metrics["valid/loss"] == truth.result.metrics["valid/loss"]
    assert found.result.metrics["test/loss"] == truth.result.metrics["test/loss"]
    if made.resources.workers == 1:
        assert len(psutil.Process().children()) == before


def test_servers_hand_out_shares_that_are_made_at_once(tmp_path: Path) -> None:
    text = ("resources.workers=2", "strategy={name: ps, mode: async}", "data.workers=1")
    assert with_workers(job(TRAINED, *text), tmp_path).result.reason == "finished"


def test_nothing_is_left_when_training_fails(tmp_path: Path) -> None:
    before = len(psutil.Process().children())
    with pytest.raises(UsageError, match="batch_size: 5000"):
        train(job(TRAINED, "batch_size=5000", "data.workers=2"), tmp_path)
    assert len(psutil.Process().children()) == before


def test_fewer_ahead_than_processes_are_refused() -> None:
    with pytest.raises(SpecError, match=r"data\.prefetch: 1 ahead would leave some of 2 data\.workers idle"):
        job(TRAINED, "data.workers=2", "data.prefetch=1")
