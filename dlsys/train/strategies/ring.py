"""Data parallel over our own ring all-reduce, started bucket by bucket while backward goes on.

Every worker holds the whole model and takes its part of the global batch. Gradients are gathered in
buckets (Li et al. 2020, arXiv:2006.15704, section 3.2); a thread of its own sends them round the
ring of `dlsys.train.collectives`. Buckets and messages are in the CPU's memory: a GPU's gradients are
copied there and back, so that on GPUs NCCL's rings, under ddp, are the quicker way.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from dlsys.spec.train.strategy import Ring
from dlsys.train.collectives import RingAllReduce
from dlsys.train.strategies.phase import TrainedPhase
from dlsys.train.strategies.single import SingleStrategy
from dlsys.train.traffic import Traffic
from dlsys.zoo.workload import Batch, Carry

# An all-reduce to make: what it fulfils, the tensor, its wire and its residual.
_Order = tuple[Future[None], Tensor, torch.dtype | None, Tensor | None]
_WIRES = {"same": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class RingStrategy(SingleStrategy):
    _lane: _Lane | None = None

    def parallelize(self, model: nn.Module) -> nn.Module:
        self._buffers = list(model.buffers())
        if self._parts.world.size > 1:
            self._lane = _Lane(RingAllReduce(), self._traffic)
            self._share([*model.parameters(), *self._buffers])
        return model

    def wrap(self, module: nn.Module) -> nn.Module:
        if self._lane is None:
            return module
        options = self._parts.job.strategy
        assert isinstance(options, Ring)
        return RingDataParallel(module, self._lane, options, self._parts.world.size)

    def accumulating(self, module: nn.Module) -> AbstractContextManager[None]:
        if isinstance(module, RingDataParallel):
            return module.no_sync()
        return super().accumulating(module)

    def reduce(self, trained: TrainedPhase) -> None:
        if isinstance(trained.module, RingDataParallel):
            with self._traffic.waiting():
                trained.module.finish()

    def add_up(self, tensor: Tensor) -> None:
        if self._lane is None:
            return
        there = tensor.cpu()
        with self._traffic.waiting():
            self._lane.submit(there).result()
        if there is not tensor:
            tensor.copy_(there)

    def finish(self) -> None:
        # Running statistics are rank 0's on all workers, as under ddp.
        with self._traffic.waiting():
            self._share(self._buffers)

    def agree(self) -> None:
        """Every step's `finish` has done it."""

    @torch.no_grad()
    def _share(self, tensors: list[Tensor]) -> None:
        """Gives every worker rank 0's values: the others add zeros to them."""
        if self._lane is None:
            return
        for dtype in sorted({tensor.dtype for tensor in tensors}, key=str):
            same = [tensor for tensor in tensors if tensor.dtype == dtype]
            flat = torch.cat([tensor.flatten().cpu() for tensor in same])
            if not self._parts.world.is_main:
                flat.zero_()
            self._lane.submit(flat).result()
            for tensor, values in zip(same, torch.split(flat, [t.numel() for t in same]), strict=True):
                tensor.copy_(values.view(tensor.shape))

    def communication(self) -> Mapping[str, float]:
        """Means over the steps since the last call: the ring's own time, how much of it a step
        waited for, and the bytes that this worker sent."""
        return self._traffic.means(timed=True) if self._lane else {}

    def close(self) -> None:
        if self._lane is not None:
            self._lane.close()


class RingDataParallel(nn.Module):
    """A phase's module, whose gradients become the mean over all workers.

    `forward` prepares the buckets, hooks hand them to the lane as backward fills them, and `finish`
    waits for their means. Buckets hold the parameters in reverse order, about the order in which
    backward comes to them. They go off in one order, the same on every worker, whatever gradients
    a worker lacks.

    Args:
        module: of its parameters, those that require gradients now are reduced.
        lane: where buckets go.
        options: the bucket's size and the wire.
        size: workers.
    """

    def __init__(self, module: nn.Module, lane: _Lane, options: Ring, size: int) -> None:
        super().__init__()
        self.module = module
        self._lane = lane
        self._wire = _WIRES[options.wire]
        feedback = self._wire is not None and options.error_feedback
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._buckets = [
            _Bucket(group, 1 / size, feedback) for group in _group(trained[::-1], options.bucket_mb << 20)
        ]
        for bucket in self._buckets:
            for index, parameter in enumerate(bucket.parameters):
                hook = partial(self._arrived, bucket, index)
                parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
        self._next = 0
        self._armed = False
        self._syncs = True

    def forward(self, batch: Batch, carry: Carry) -> tuple[Tensor, dict[str, Tensor], Carry]:
        if self._syncs:
            for bucket in self._buckets:
                bucket.missing = set(range(len(bucket.parameters)))
            self._next, self._armed = 0, True
        found: tuple[Tensor, dict[str, Tensor], Carry] = self.module(batch, carry)
        return found

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Gradients of passes in here stay on this worker, and add up."""
        self._syncs = False
        try:
            yield
        finally:
            self._syncs = True

    def _arrived(self, bucket: _Bucket, index: int, parameter: Tensor) -> None:
        if self._armed:
            bucket.take(index)
            self._send_full()

    def _send_full(self) -> None:
        while self._next < len(self._buckets) and not self._buckets[self._next].missing:
            bucket = self._buckets[self._next]
            bucket.reduced = self._lane.submit(bucket.flat, self._wire, bucket.residual)
            self._next += 1

    def finish(self) -> None:
        """Leaves the means in `.grad`; None where no worker has a gradient.

        Raises:
            RuntimeError: a peer is gone.
        """
        self._armed = False
        for bucket in self._buckets:
            for index in sorted(bucket.missing):
                bucket.take(index)
        self._send_full()
        for bucket in self._buckets:
            bucket.reduced.result()
            bucket.give()


class _Bucket:
    """Gradients that travel together, one behind the other, and behind them a flag for each.

    Args:
        parameters: of one type.
        scale: what gradients are multiplied by.
        feedback: keep what the wire rounds off for the next step.

    Attributes:
        missing: numbers of the parameters whose gradient has not come yet.
        reduced: done when `flat` is the sum over all workers.
    """

    reduced: Future[None]

    def __init__(self, parameters: list[nn.Parameter], scale: float, feedback: bool) -> None:
        self.parameters = parameters
        self.missing: set[int] = set()
        self._scale = scale
        sizes = [parameter.numel() for parameter in parameters]
        self.flat = torch.zeros(sum(sizes) + len(sizes), dtype=parameters[0].dtype)
        self.residual = torch.zeros_like(self.flat) if feedback else None
        *pieces, self._flags = torch.split(self.flat, [*sizes, len(sizes)])
        self._means = [piece.view(p.shape) for piece, p in zip(pieces, parameters, strict=True)]

    @torch.no_grad()
    def take(self, index: int) -> None:
        """Copies a parameter's gradient in, or zeros if this worker has none."""
        gradient = self.parameters[index].grad
        self._flags[index] = gradient is not None
        if gradient is None:
            self._means[index].zero_()
        else:
            torch.mul(gradient.cpu(), self._scale, out=self._means[index])
        self.missing.remove(index)

    def give(self) -> None:
        """Makes the means the parameters' gradients; on the CPU without a copy."""
        for parameter, mean, flag in zip(self.parameters, self._means, self._flags.tolist(), strict=True):
            parameter.grad = mean.to(parameter.device) if flag else None


def _group(parameters: list[nn.Parameter], limit: int) -> list[list[nn.Parameter]]:
    """Runs of parameters of one type, of at most `limit` bytes or one parameter."""
    groups: list[list[nn.Parameter]] = []
    room = 0
    for parameter in parameters:
        room -= parameter.nbytes
        if not groups or room < 0 or parameter.dtype != groups[-1][0].dtype:
            groups.append([])
            room = limit - parameter.nbytes
        groups[-1].append(parameter)
    return groups


class _Lane:
    """A thread that sends tensors round a ring, in the order in which they are submitted.

    It is a daemon, so that a peer who never answers cannot keep the process from ending.
    """

    def __init__(self, ring: RingAllReduce, traffic: Traffic) -> None:
        self._ring, self._traffic = ring, traffic
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name="dlsys-ring", daemon=True).start()

    def submit(
        self, tensor: Tensor, wire: torch.dtype | None = None, residual: Tensor | None = None
    ) -> Future[None]:
        """Starts an all-reduce in place. Its error, and every later one's, is the first."""
        reduced: Future[None] = Future()
        self._orders.put((reduced, tensor, wire, residual))
        return reduced

    def close(self) -> None:
        """Ends the thread when it has done what it was given."""
        self._orders.put(None)

    def _serve(self) -> None:
        failed: Exception | None = None
        while order := self._orders.get():
            reduced, tensor, wire, residual = order
            begun, before = time.perf_counter(), self._ring.sent_bytes
            try:
                if failed is None:
                    self._ring.all_reduce(tensor, wire=wire, residual=residual)
            except Exception as error:
                failed = error
            sent = self._ring.sent_bytes - before
            self._traffic.add(sent=sent, seconds=time.perf_counter() - begun)
            if failed is not None:
                reduced.set_exception(failed)
            else:
                reduced.set_result(None)
