"""Data parallel: torch's DistributedDataParallel (Li et al. 2020, arXiv:2006.15704).

Every worker holds the whole model and takes its part of the global batch; gradients are averaged
in buckets by all-reduce while backward goes on. Bytes sent by each worker and step, with a ring:
2·(n−1)/n times the gradients' size.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.distributed.algorithms.model_averaging.utils import average_parameters
from torch.nn.parallel import DistributedDataParallel

from dlsys.errors import UsageError
from dlsys.spec.train.strategy import DDP
from dlsys.train.collectives.mean import add_up
from dlsys.train.strategies.base import Parts, State
from dlsys.train.strategies.phase import TrainedPhase
from dlsys.train.strategies.single import SingleStrategy


class DDPStrategy(SingleStrategy):
    """
    Attributes:
        _idle: by phase, the parameters without a gradient in its first step.
    """

    _idle: dict[str, set[str]]

    def setup(self, parts: Parts) -> None:
        self._idle = {}
        super().setup(parts)

    @property
    def _options(self) -> DDP:
        options = self._parts.job.strategy
        assert isinstance(options, DDP)
        return options

    def wrap(self, module: nn.Module) -> nn.Module:
        # Workers that train apart need nothing of DDP.
        if self._parts.world.size == 1 or self._options.local_sgd:
            return module
        return self._wrapped(module, seeks=self._seeks_idle)

    def _wrapped(self, module: nn.Module, *, seeks: bool) -> DistributedDataParallel:
        """
        Args:
            seeks: finds out in each step which parameters are not used.
        """
        device = self._parts.world.device
        wrapped = DistributedDataParallel(
            module,
            device_ids=[device.index] if device.type == "cuda" else None,
            bucket_cap_mb=self._options.bucket_mb,
            static_graph=self._options.static_graph,
            # Else a parameter without a gradient holds up its whole bucket, whose gradients stay this
            # worker's own. torch warns where all are used: that it looked for nothing.
            find_unused_parameters=seeks,
            gradient_as_bucket_view=True,
        )
        warnings.filterwarnings("ignore", "find_unused_parameters=True was specified", UserWarning)
        if device.type == "cpu":
            # On a GPU this waits for the step before; there, DDP times every hundredth step.
            wrapped._set_ddp_runtime_logging_sample_rate(1)  # type: ignore[no-untyped-call]
        _compress(wrapped, self._options)
        return wrapped

    @property
    def _seeks_idle(self) -> bool:
        """Whether DDP finds out which parameters a step does not use.

        PowerSGD's hook starts all-reduces from threads of its own, and the one that tells who has used what
        comes between them, on each worker elsewhere.
        """
        return not self._options.static_graph and self._options.hook != "powersgd"

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
        module = trained.module
        seeks = isinstance(module, DistributedDataParallel) and module.find_unused_parameters
        if isinstance(module, DistributedDataParallel):
            if not seeks:
                self._check_promise(trained)
            elif not options.find_unused and self._parts.job.gradient.accumulate == 1:
                idle = any(parameter.grad is None for parameter in trained.parameters)
                if not idle:
                    # Looking again at every step would cost more than a small step does. Of several
                    # backward passes, only looking tells what the last one has left out.
                    trained.module = self._wrapped(module.module, seeks=False)
        width = 2 if options.hook == "fp16" else 8
        sent = sum(p.numel() * min(width, p.element_size()) for p in trained.parameters)
        if seeks:
            sent += 4 * len(trained.parameters)  # who has used which
        # Of an average now and then, each step sends its share.
        steps = options.local_sgd.every if options.local_sgd else 1
        self._traffic.add(sent=2 * (size - 1) / size * sent / steps)

    def add_up(self, tensor: Tensor) -> None:
        if self._parts.world.size > 1:
            add_up(tensor, self._group, self._traffic)

    def backward(self, module: nn.Module, loss: Tensor) -> None:
        try:
            super().backward(module, loss)
        except RuntimeError as error:
            if "training graph has changed" in str(error):  # and no peer has gone
                for trained in self._phases:
                    self._check_promise(trained)
            raise

    def _check_promise(self, trained: TrainedPhase) -> None:
        """Holds a step against the first one.

        Raises:
            UsageError: other parameters have gradients.
        """
        idle = {name for name, parameter in trained.named if parameter.grad is None}
        first: set[str] = set()
        if self._options.static_graph:
            first = self._idle.setdefault(trained.phase.name, idle)
        if idle != first:
            # A backward pass that torch has ended lacks more than the one that is to blame.
            name = min(first - idle or idle - first)
            if self._options.hook == "powersgd":
                raise UsageError(
                    f"strategy.hook: powersgd compresses the gradients of all parameters, and {name} has "
                    "none: freeze it, or say hook: none"
                )
            if not self._options.static_graph:
                raise UsageError(
                    f"strategy.find_unused: {name} has no gradient in this step, and had one in the first: "
                    "say find_unused: true"
                )
            raise UsageError(
                f"strategy.static_graph: {name} has a gradient in some steps only, and the promise is that "
                "each step uses the same parameters: say static_graph: false"
            )

    def agree(self) -> None:
        if not self._options.local_sgd:  # which leaves workers their own, as it does with weights
            super().agree()

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
            for saved in state.optimizers.values():
                saved["state"] = _mean_state(saved["state"], size)
        return state

    def communication(self) -> Mapping[str, float]:
        found = self._traffic.means(timed=False)
        if self._options.local_sgd:
            return found
        if self._options.hook == "powersgd":
            found.pop("bytes")  # they depend on each tensor's shape
        # DDP times a step now and then, which takes longer than others: what it tells is a share.
        exposed = computing = 0.0
        for trained in self._phases:
            if isinstance(trained.module, DistributedDataParallel):
                data = trained.module._get_ddp_logging_data()  # type: ignore[no-untyped-call]
                shared = float(data.get("backward_compute_comm_overlap_time", 0))
                exposed += max(0.0, float(data.get("backward_comm_time", 0)) - shared)
                computing += float(data.get("forward_compute_time", 0))
                computing += float(data.get("backward_compute_time", 0))
        return {**found, "exposed_share": exposed / (exposed + computing)} if computing else found


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


def _mean_state(states: dict[str, Any], size: int) -> dict[str, Any]:
    """The mean of the optimizers' states by parameter, over the workers that have one.

    A worker's optimizer has none of a parameter that its rows have not used.
    """
    everybody: list[Any] = [None] * size
    dist.all_gather_object(everybody, [*states])
    holders = Counter(name for names in everybody for name in names)
    found = {}
    for name in sorted(holders):
        if holders[name] == size:
            found[name] = _mean(states[name], size)
        else:
            all_states: list[Any] = [None] * size
            dist.all_gather_object(all_states, states.get(name))
            found[name] = _mean_of([state for state in all_states if state is not None])
    return found


def _mean_of(trees: list[Any]) -> Any:
    first = trees[0]
    if isinstance(first, dict):
        return {key: _mean_of([tree[key] for tree in trees]) for key in first}
    if isinstance(first, Tensor) and first.is_floating_point():
        return torch.stack(trees).mean(0)
    return first


def _mean(tree: Any, size: int) -> Any:
    """The workers' mean of every floating-point tensor in nested dicts; the rest as it is here."""
    if isinstance(tree, dict):
        return {name: _mean(value, size) for name, value in tree.items()}
    if isinstance(tree, Tensor) and tree.is_floating_point():
        mean = tree.detach().clone()
        dist.all_reduce(mean)
        return mean.div_(size)
    return tree
