"""No row is lost, none comes twice, at any size and any number of workers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlsys.data import TensorDataset
from dlsys.data.loader import Loader
from dlsys.data.order import Order, shares

sizes = st.integers(1, 60)


@settings(deadline=None, max_examples=200)
@given(
    rows=st.integers(1, 200),
    batch=st.integers(1, 64),
    workers=st.integers(1, 7),
    micro=st.integers(1, 4),
    kind=st.sampled_from(["shuffled", "sequential", "streams"]),
    seed=st.integers(0, 3),
)
def test_every_row_once_an_epoch(rows, batch, workers, micro, kind, seed) -> None:
    order = Order(rows, min(batch, rows), kind, seed)
    seen: list[int] = []
    for step in range(order.steps_per_epoch):
        whole = order.step(2, step)
        parts = [shares(whole, order.batch_size, rank, workers, micro) for rank in range(workers)]
        assert {len(part) for part in parts} == {micro}
        flat = [share for part in parts for share in part]
        assert all(len(share.rows) > 0 for share in flat), "every worker takes part in every step"
        real = np.concatenate([share.rows[: share.real] for share in flat])
        # In order of ranks, the shares are the global batch itself.
        assert real.tolist() == whole.tolist()
        seen += real.tolist()
    assert sorted(seen) == list(range(rows))


def test_shuffles_differ_by_epoch_and_seed_and_repeat() -> None:
    order = Order(100, 10, "shuffled", 1)
    first = order.step(0, 0).tolist()
    assert order.step(1, 0).tolist() != first
    assert Order(100, 10, "shuffled", 2).step(0, 0).tolist() != first
    assert order.step(0, 0).tolist() == first


def test_streams_continue_from_step_to_step() -> None:
    order = Order(23, 4, "streams")
    for step in range(order.steps_per_epoch - 1):
        now, then = order.step(0, step), order.step(0, step + 1)
        assert (then == now[: len(then)] + 1).all()


def test_a_slot_belongs_to_the_same_worker_at_every_step() -> None:
    order = Order(23, 5, "streams")
    owned: list[set[int]] = [set(), set()]
    for step in range(order.steps_per_epoch):
        for rank in range(2):
            for share in shares(order.step(0, step), 5, rank, 2, 1):
                owned[rank] |= set(share.rows[: share.real].tolist())
    assert not owned[0] & owned[1]
    assert owned[0] == set(range(10)), "slots 0 and 1: two runs of five neighbouring rows"


@pytest.mark.parametrize("prefetch", [0, 3])
def test_batches_resume_in_the_middle_of_an_epoch(prefetch: int) -> None:
    dataset = TensorDataset({"x": torch.arange(50)})
    loader = Loader(dataset, Order(50, 8, "shuffled", 3), prefetch=prefetch)
    whole = [batch.micros[0].batch["x"].tolist() for batch in loader.epoch(1)]
    rest = [batch.micros[0].batch["x"].tolist() for batch in loader.epoch(1, start=4)]
    assert rest == whole[4:]


def test_weights_of_a_step_add_up_to_one() -> None:
    dataset = TensorDataset({"x": torch.arange(50)})
    for size in (1, 2, 3, 5):
        loaders = [Loader(dataset, Order(50, 8, "shuffled"), rank=r, size=size, micro=2) for r in range(size)]
        for parts in zip(*(loader.epoch(0) for loader in loaders), strict=True):
            assert sum(m.weight for part in parts for m in part.micros) == pytest.approx(1.0)


def test_keys_belong_to_rows() -> None:
    """Row-wise randomness is the same whichever worker and batch a row lands in."""
    dataset = TensorDataset({"x": torch.arange(50)})

    def keys(size: int, batch: int, epoch: int) -> dict[int, int]:
        found = {}
        for rank in range(size):
            for step in Loader(dataset, Order(50, batch, "shuffled", 3), rank=rank, size=size).epoch(epoch):
                for micro in step.micros:
                    pairs = zip(micro.batch["x"].tolist(), micro.batch["key"].tolist(), strict=True)
                    found |= dict(list(pairs)[: micro.real])
        return found

    one = keys(1, 8, 0)
    assert len(set(one.values())) == 50
    assert keys(3, 10, 0) == one
    assert not set(keys(1, 8, 1).values()) & set(one.values())


def test_an_error_while_prefetching_arrives_in_the_loop() -> None:
    class Broken(TensorDataset):
        def batch(self, rows):
            if 20 in rows:
                raise OSError("unreadable")
            return super().batch(rows)

    loader = Loader(Broken({"x": torch.arange(50)}), Order(50, 8, "sequential"), prefetch=2)
    with pytest.raises(OSError, match="unreadable"):
        list(loader.epoch(0))


def test_leaving_a_prefetched_epoch_early_ends_its_thread() -> None:
    loader = Loader(TensorDataset({"x": torch.arange(50)}), Order(50, 2, "sequential"), prefetch=2)
    for _ in loader.epoch(0):
        break
