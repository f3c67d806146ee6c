"""Data parallel: torch's DistributedDataParallel (Li et al. 2020, arXiv:2006.15704).

Every worker holds the whole model and takes its part of the global batch; gradients are averaged
in buckets by all-reduce while backward goes on. Bytes sent by each worker and step, with a ring:
2·(n−1)/n times the gradients' size.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.distributed.algorithms.model_averaging.utils import average_parameters
from torch.nn.parallel import DistributedDataParallel

from dlsys.spec.train.strategy import DDP
from dlsys.train.strategies.base import State
from dlsys.train.strategies.phase import TrainedPhase
from dlsys.train.strategies.single import SingleStrategy


class DDPStrategy(SingleStrategy):
    @property
    def _options(self) -> DDP:
        options = self._parts.job.strategy
        assert isinstance(options, DDP)
        return options

    def wrap(self, module: nn.Module) -> nn.Module:
        # Workers that train apart need nothing of DDP.
        if self._parts.world.size == 1 or self._options.local_sgd:
            return module
        device = self._parts.world.device
        wrapped = DistributedDataParallel(
            module,
            device_ids=[device.index] if device.type == "cuda" else None,
            bucket_cap_mb=self._options.bucket_mb,
            static_graph=self._options.static_graph,
            gradient_as_bucket_view=True,
        )
        if device.type == "cpu":
            # On a GPU this waits for the step before; there, DDP times every hundredth step.
            wrapped._set_ddp_runtime_logging_sample_rate(1)  # type: ignore[no-untyped-call]
        _compress(wrapped, self._options)
        return wrapped

    @property
    def _group(self) -> dist.ProcessGroup:
        group = dist.group.WORLD
        assert group is not None, "several workers have a process group"
        return group

    def accumulating(self, module: nn.Module) -> AbstractContextManager[None]:
        if isinstance(module, DistributedDataParallel):
            return module.no_sync()
        return super().accumulating(module)

    def reduce(self, trained: TrainedPhase) -> None:
        """Backward has done it; this counts what it sent."""
        size, options = self._parts.world.size, self._options
        width = 2 if options.hook == "fp16" else 8
        sent = sum(p.numel() * min(width, p.element_size()) for p in trained.parameters)
        # Of an average now and then, each step sends its share.
        steps = options.local_sgd.every if options.local_sgd else 1
        self._traffic.add(sent=2 * (size - 1) / size * sent / steps)

    def update(
        self, trained: TrainedPhase, step: int, hyper: Mapping[str, float | None], sums: dict[str, Tensor]
    ) -> Tensor:
        norm = super().update(trained, step, hyper, sums)
        local = self._options.local_sgd
        if local and step % local.every == 0 and self._parts.world.size > 1:
            average_parameters(iter(trained.parameters), self._group)
        return norm

    def state_out(self) -> State:
        """Under `local_sgd`, the mean of the workers' states: a run that resumes starts from it."""
        state = super().state_out()
        size = self._parts.world.size
        if self._options.local_sgd and size > 1:
            state.model = _mean(state.model, size)
            state.optimizers = _mean(state.optimizers, size)
        return state

    def communication(self) -> Mapping[str, float]:
        found = self._traffic.means(timed=False)
        if self._options.local_sgd:
            return found
        if self._options.hook == "powersgd":
            found.pop("bytes")  # they depend on each tensor's shape
        # Of the last step that DDP has timed.
        seconds = hidden = 0.0
        for trained in self._phases:
            if isinstance(trained.module, DistributedDataParallel):
                data = trained.module._get_ddp_logging_data()  # type: ignore[no-untyped-call]
                seconds += float(data.get("backward_comm_time", 0)) / 1e9
                hidden += float(data.get("backward_compute_comm_overlap_time", 0)) / 1e9
        return {**found, "seconds": seconds, "exposed_seconds": max(0.0, seconds - hidden)}


def _compress(module: DistributedDataParallel, options: DDP) -> None:
    match options.hook:
        case "fp16":
            module.register_comm_hook(None, default_hooks.fp16_compress_hook)
        case "powersgd":
            state = powerSGD_hook.PowerSGDState(
                process_group=None,
                matrix_approximation_rank=options.powersgd_rank,
                start_powerSGD_iter=2,  # DDP rebuilds its buckets after the first step
            )
            module.register_comm_hook(state, powerSGD_hook.powerSGD_hook)


def _mean(tree: Any, size: int) -> Any:
    """The workers' mean of every floating-point tensor in nested dicts; the rest as it is here."""
    if isinstance(tree, dict):
        return {name: _mean(value, size) for name, value in tree.items()}
    if isinstance(tree, Tensor) and tree.is_floating_point():
        mean = tree.detach().clone()
        dist.all_reduce(mean)
        return mean.div_(size)
    return tree
