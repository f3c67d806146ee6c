"""Batches made ahead by processes: decoded, varied and scaled beside training, in the order of the steps.

Processes are forked, once, before there is a model. So they have the rows of any source as they are, without
pickling or loading them again, share their memory with training, and are there within milliseconds, where a
fresh interpreter imports torch for seconds. What goes wrong where one forks beside threads is kept out: they
compute with one thread, touch neither devices, process groups nor Ray, and have imported what a batch needs.

`torch.utils.data.DataLoader` forks processes for each split, and anew while training goes on; where /dev/shm
is too small for a batch it hangs; and an error loses its hint.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import random
import signal
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from multiprocessing import reduction
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from typing import NoReturn

import numpy as np
import torch

from dlsys.data.augment import own_numbers
from dlsys.data.loader import Loader, StepBatch
from dlsys.data.parcel import Parcel, pack, unpack
from dlsys.errors import DlsysError, UsageError, WorkerDiedError
from dlsys.own.frames import picklable

# <linux/prctl.h>
_PR_SET_PDEATHSIG = 1
# Batches ahead for each process: one that is ready, and one in the making.
_AHEAD = 2
# Seconds in which a process makes its first row, besides ten times what it took here; and how many may try.
_PATIENCE = 10.0
_TRIES = 3


@dataclass(frozen=True)
class _Asked:
    """A batch to make: of which split, for which worker (rank, of how many), and when."""

    split: str
    place: tuple[int, int]
    epoch: int
    step: int


@dataclass
class _Maker:
    """A process, and what it was asked for.

    Attributes:
        asked: how many batches so far; they come in this order.
        came: those that did.
        early: batches that came before they were wanted, by their number.
        unwanted: numbers of those that nobody waits for any more.
    """

    process: ForkProcess
    pipe: Connection
    asked: int = 0
    came: int = 0
    early: dict[int, StepBatch | Exception] = field(default_factory=dict)
    unwanted: set[int] = field(default_factory=set)

    def end(self) -> None:
        self.process.kill()  # it holds nothing that is worth a tidy end
        self.process.join()
        self.process.close()
        self.pipe.close()  # last, so that it does not complain


@contextmanager
def made_by(loaders: Mapping[str, Loader], *, workers: int, prefetch: int) -> Iterator[None]:
    """Has processes make the batches of all these loaders, and ends them.

    Args:
        loaders: by the name of their split. Their rows, order and transforms are settled now, their place
            among others is not.
        workers: processes; 0 leaves everything as it is.
        prefetch: batches made ahead by all of them together; 0: two by each.

    Raises:
        UsageError: this process may have no others.
    """
    if not workers:
        yield
        return
    if multiprocessing.current_process().daemon:
        raise UsageError(
            "data.workers: dlsys runs in a daemonic process of multiprocessing, which may start no others",
            hint="start that process with daemon=False, or leave data.workers out",
        )
    makers = _Makers(loaders, workers, prefetch or _AHEAD * workers)
    try:
        for split, loader in loaders.items():
            loader.ahead = partial(makers.batches, split)
        yield
    finally:
        for loader in loaders.values():
            loader.ahead = None
        makers.end()


def _try(loaders: Mapping[str, Loader]) -> None:
    """Makes a row of each split: imports what that takes, and meets the locks that it waits for."""
    for loader in loaders.values():
        with suppress(Exception):  # is raised at the step that it belongs to
            loader.rows(0, np.zeros(1, dtype=np.int64))


class _Makers:
    def __init__(self, loaders: Mapping[str, Loader], count: int, ahead: int) -> None:
        self._loaders, self._ahead = loaders, ahead
        self._makers: list[_Maker] = []
        self._turn = 0
        began = time.monotonic()
        # What another thread is importing when a process is forked, that process would wait for for ever.
        with own_numbers():
            _try(loaders)
        self._patience = _PATIENCE + 10 * (time.monotonic() - began)
        try:
            for _ in range(count):
                self._makers.append(self._start())
            for place in range(count):
                self._await(place)
        except BaseException:
            self.end()
            raise

    def _start(self) -> _Maker:
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        others = [ours, *(maker.pipe for maker in self._makers)]
        given = (theirs, others, self._loaders, os.getpid())
        process = context.Process(target=_serve, args=given, name="dlsys-maker")
        process.start()
        theirs.close()
        return _Maker(process, ours)

    def _await(self, place: int) -> None:
        """Waits until a process has made a row. One that was forked while another thread held a lock that it
        needs (a generator's of random numbers) never will, and gives place to a new one.

        Raises:
            WorkerDiedError: it has died, or none of several answers.
        """
        for _ in range(_TRIES):
            maker = self._makers[place]
            if maker.pipe.poll(self._patience):
                try:
                    maker.pipe.recv()
                except (EOFError, OSError):
                    _tell_death(maker)
                return
            self._makers[place] = self._start()
            maker.end()
        raise WorkerDiedError(
            f"a process that makes batches (data.workers) has made none in {self._patience:.0f} s, "
            f"{_TRIES} times",
            hint="A thread of this process may hold what a row needs; data.workers: 0 makes them here.",
        )

    def batches(self, split: str, place: tuple[int, int], epoch: int, steps: range) -> Iterator[StepBatch]:
        """As `dlsys.data.loader.Ahead`. Several may go on by turns: an evaluation within an epoch."""
        wanted: deque[tuple[_Maker, int]] = deque()
        waiting = iter(steps)

        def ask(count: int) -> None:
            for step in islice(waiting, count):
                wanted.append(self._ask(_Asked(split, place, epoch, step)))

        try:
            ask(self._ahead)
            while wanted:
                batch = self._take(*wanted.popleft())
                ask(1)
                yield batch
        finally:
            for maker, number in wanted:
                if maker.early.pop(number, None) is None:
                    maker.unwanted.add(number)

    def _ask(self, asked: _Asked) -> tuple[_Maker, int]:
        """By turns, so that who makes a batch is known beforehand."""
        maker = self._makers[self._turn]
        self._turn = (self._turn + 1) % len(self._makers)
        while maker.pipe.poll():  # or each could wait for the other to read
            self._receive(maker)
        try:
            maker.pipe.send(asked)
        except OSError:
            _tell_death(maker)
        maker.asked += 1
        return maker, maker.asked - 1

    def _take(self, maker: _Maker, number: int) -> StepBatch:
        while number not in maker.early:
            self._receive(maker)
        found = maker.early.pop(number)
        if isinstance(found, Exception):
            raise found
        return found

    def _receive(self, maker: _Maker) -> None:
        try:
            found = maker.pipe.recv()
            if isinstance(found, Parcel):
                found = unpack(found, reduction.recv_handle(maker.pipe))
        except (EOFError, OSError):
            _tell_death(maker)
        if maker.came in maker.unwanted:
            maker.unwanted.remove(maker.came)
        else:
            maker.early[maker.came] = found
        maker.came += 1

    def end(self) -> None:
        for maker in self._makers:
            maker.end()
        self._makers.clear()


def _tell_death(maker: _Maker) -> NoReturn:
    """Raises WorkerDiedError: a process has closed its end, which nothing but its own end does."""
    maker.process.join()
    code = maker.process.exitcode or 0
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
    raise WorkerDiedError(
        f"a process that makes batches (data.workers, pid {maker.process.pid}) {how}",
        hint="Was it SIGKILL and nobody's, memory ran out: lower data.workers or data.prefetch."
        if code == -signal.SIGKILL
        else "Its own code did that: data.workers: 0 runs the same in the training process.",
    )


def _serve(pipe: Connection, others: list[Connection], loaders: Mapping[str, Loader], parent: int) -> None:
    """A process: makes what it is asked for until its parent is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    # The terminal and schedulers send these to whole groups. Training decides what it still needs.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for other in others:
        other.close()  # or the end of one would be seen by nobody
    gc.freeze()  # what was training's is never collected here: its finalizers may wait for threads not forked
    torch.set_num_threads(1)
    placed: dict[tuple[str, tuple[int, int]], Loader] = {}
    _seed(0, _Asked("", (0, 1), 0, 0))
    _try(loaders)
    pipe.send(None)
    while True:
        try:
            asked: _Asked = pipe.recv()
        except EOFError:
            return
        where = (asked.split, asked.place)
        if where not in placed:
            placed[where] = loaders[asked.split].placed(*asked.place)
        try:
            _seed(placed[where].order.seed, asked)
            parcel, handle = pack(placed[where].make_here(asked.epoch, asked.step))
        except Exception as error:
            pipe.send(
                error
                if isinstance(error, DlsysError)
                else picklable(error, "in a process that makes batches")
            )
            continue
        pipe.send(parcel)
        reduction.send_handle(pipe, handle, parent)
        os.close(handle)


def _seed(seed: int, asked: _Asked) -> None:
    """What a data set draws at random depends on the batch, not on the process that makes it."""
    words = np.random.SeedSequence([seed, *asked.split.encode(), *asked.place, asked.epoch, asked.step])
    first, second, third = words.generate_state(3)
    torch.default_generator.manual_seed(int(first))
    np.random.seed(second)
    random.seed(int(third))
