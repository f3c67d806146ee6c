"""Turns the order of rows into a worker's batches, ahead of time if asked to."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from dlsys.data import rowwise
from dlsys.data.dataset import Batch, Dataset
from dlsys.data.mixing import partners
from dlsys.data.order import Order, shares

_KEYS_AT_ONCE = 1_000_000


@dataclass
class MicroBatch:
    """A worker's rows of one forward pass.

    Attributes:
        batch: fields by name, on the worker's device.
        weight: rows that count, divided by the rows of the global batch: the loss's share.
        real: rows that count; 0 for a stand-in.
    """

    batch: Batch
    weight: float
    real: int


@dataclass
class StepBatch:
    """A worker's part of one global batch.

    Attributes:
        micros: one micro-batch for each forward pass; at least one.
        rows: rows of the whole global batch, over all workers.
    """

    micros: list[MicroBatch]
    rows: int


class Ahead(Protocol):
    """Makes batches somewhere else, before they are asked for."""

    def __call__(self, place: tuple[int, int], epoch: int, steps: range) -> Iterator[StepBatch]:
        """The batches of some steps, in order, of a worker `place[0]` of `place[1]`; on the CPU."""
        ...


class Loader:
    """One split's batches for one worker.

    Args:
        dataset: the split.
        order: its global batches.
        rank, size: which worker of how many.
        micro: micro-batches a step.
        device: where batches go.
        floats: the type that floating-point fields become; None leaves them.
        prefetch: batches made ahead by a thread, where `ahead` makes none; 0 makes each when it is asked for.
        vary: applied to the rows of each micro-batch (augmentation).
        mix: then mixes them with others, which `dlsys.data.mixing.partners` names.
        scale: then brings them to what the model takes (normalization).

    Attributes:
        ahead: makes the batches instead, where other processes do (`dlsys.data.makers`).
    """

    ahead: Ahead | None = None

    def __init__(
        self,
        dataset: Dataset,
        order: Order,
        *,
        rank: int = 0,
        size: int = 1,
        micro: int = 1,
        device: torch.device | str = "cpu",
        floats: torch.dtype | None = None,
        prefetch: int = 0,
        vary: Callable[[Batch], Batch] | None = None,
        mix: Callable[[Batch, Batch], Batch] | None = None,
        scale: Callable[[Batch], Batch] | None = None,
    ) -> None:
        self.dataset = dataset
        self.order = order
        self._place = (rank, size, micro)
        self._device = torch.device(device)
        self._floats = floats
        self._prefetch = prefetch
        self._vary, self._mix, self._scale = vary, mix, scale
        self._epoch_keys: tuple[int, torch.Tensor] | None = None

    def epoch(self, epoch: int, start: int = 0) -> Iterator[StepBatch]:
        """The batches of an epoch from step `start` on."""
        steps = range(start, self.order.steps_per_epoch)
        if self.ahead is not None:
            rank, size, _ = self._place
            yield from map(self._moved, self.ahead((rank, size), epoch, steps))
            return
        if not self._prefetch:
            yield from (self.make(epoch, step) for step in steps)
            return
        yield from _ahead((self.make(epoch, step) for step in steps), self._prefetch)

    def first(self, rows: int) -> tuple[Batch, Batch]:
        """The first rows of the split, up to so many, on the CPU: before they are scaled, and after it."""
        batch = self._varied(0, np.arange(min(rows, len(self.dataset))))
        return batch, self._scale(batch) if self._scale else batch

    def placed(self, rank: int, size: int) -> Loader:
        """The same batches, shared by other workers."""
        other = copy(self)
        other._place = (rank, size, self._place[2])
        return other

    def _keys(self, epoch: int, rows: np.ndarray) -> torch.Tensor:
        """The rows' keys; of a split that is not huge, all are made at once, which is cheaper."""
        if len(self.dataset) > _KEYS_AT_ONCE:
            return rowwise.keys(self.order.seed, epoch, rows)
        if self._epoch_keys is None or self._epoch_keys[0] != epoch:
            every = np.arange(len(self.dataset))
            self._epoch_keys = (epoch, rowwise.keys(self.order.seed, epoch, every))
        return self._epoch_keys[1][torch.from_numpy(rows)]

    def make(self, epoch: int, step: int, rank: int | None = None) -> StepBatch:
        """One batch: this worker's share of a step (from 0), or the one of another `rank`."""
        return self._moved(self.make_here(epoch, step, rank))

    def make_here(self, epoch: int, step: int, rank: int | None = None) -> StepBatch:
        """As `make`, on the CPU and with numbers of the types that transforms give."""
        rows = self.order.step(epoch, step)
        own, size, micro = self._place
        micros = []
        for share in shares(rows, self.order.batch_size, own if rank is None else rank, size, micro):
            micros.append(MicroBatch(self.rows(epoch, share.rows), share.real / len(rows), share.real))
        return StepBatch(micros, len(rows))

    def rows(self, epoch: int, numbers: np.ndarray) -> Batch:
        """Rows with their keys of an epoch, as a model gets them but for the device."""
        batch = self._varied(epoch, numbers)
        return self._scale(batch) if self._scale else batch

    def _varied(self, epoch: int, rows: np.ndarray) -> Batch:
        batch = self._fetched(epoch, rows)
        if self._mix is None:
            return batch
        others = partners(batch["key"], len(self.dataset))
        return self._mix(batch, self._fetched(epoch, others))

    def _fetched(self, epoch: int, rows: np.ndarray) -> Batch:
        batch = {**self.dataset.batch(rows), "key": self._keys(epoch, rows)}
        return self._vary(batch) if self._vary else batch

    def _moved(self, batch: StepBatch) -> StepBatch:
        """The batch on the worker's device, in the types that it computes in."""
        if self._device.type != "cpu" or self._floats is not None:
            for micro in batch.micros:
                micro.batch = {name: self._placed(tensor) for name, tensor in micro.batch.items()}
        return batch

    def _placed(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self._device, self._floats if tensor.is_floating_point() else None)


@dataclass
class _Failure:
    error: BaseException


def _ahead(batches: Iterator[StepBatch], depth: int) -> Iterator[StepBatch]:
    """Runs an iterator in a thread, at most `depth` items ahead; its errors arrive here."""
    ready: queue.Queue[StepBatch | _Failure | None] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(item: StepBatch | _Failure | None) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in batches:
                if not put(item):
                    return
            put(None)
        except BaseException as error:
            put(_Failure(error))

    thread = threading.Thread(target=work, name="dlsys-prefetch", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, _Failure):
                raise item.error
            yield item
    finally:
        stop.set()
        thread.join(timeout=5)
