"""Data parallel: torch's DistributedDataParallel (Li et al. 2020, arXiv:2006.15704).

Every worker holds the whole model and takes its part of the global batch; gradients are averaged
in buckets by all-reduce while backward goes on. Bytes sent by each worker and step, with a ring:
2·(n−1)/n times the gradients' size.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dlsys.spec.strategy import DDP
from dlsys.train.strategies.single import SingleStrategy


class DDPStrategy(SingleStrategy):
    def wrap(self, module: nn.Module) -> nn.Module:
        if self._parts.world.size == 1:
            return module
        options = self._parts.job.strategy
        assert isinstance(options, DDP)
        device = self._parts.world.device
        return DistributedDataParallel(
            module,
            device_ids=[device.index] if device.type == "cuda" else None,
            bucket_cap_mb=options.bucket_mb,
            static_graph=options.static_graph,
            gradient_as_bucket_view=True,
        )

    def accumulating(self, module: nn.Module) -> AbstractContextManager[None]:
        if isinstance(module, DistributedDataParallel):
            return module.no_sync()
        return super().accumulating(module)

    def communication(self) -> Mapping[str, float]:
        # DDP times its own first ten steps, and then every hundredth.
        seconds = hidden = sent = 0.0
        size = self._parts.world.size
        for trained in self._phases:
            if isinstance(trained.module, DistributedDataParallel):
                data = trained.module._get_ddp_logging_data()  # type: ignore[no-untyped-call]
                seconds += float(data.get("avg_backward_comm_time", 0)) / 1e9
                hidden += float(data.get("avg_backward_compute_comm_overlap_time", 0)) / 1e9
            gradient = sum(p.numel() * p.element_size() for p in trained.parameters)
            sent += 2 * (size - 1) / size * gradient / trained.phase.every
        return {"seconds": seconds, "exposed_seconds": max(0.0, seconds - hidden), "bytes": sent}
