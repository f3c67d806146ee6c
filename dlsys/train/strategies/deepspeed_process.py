"""DeepSpeed in a worker's process: what it wants to find there, and what it must not leave behind."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dlsys.errors import UsageError
from dlsys.spec.train.optimizer import Adam, AdamW, Optimizer
from dlsys.train.traffic import Traffic
from dlsys.train.world import World, backends


def prepare(world: World, undo: ExitStack) -> None:
    """Imports DeepSpeed, for this worker.

    Args:
        undo: is told how to leave the process as it was.
    """
    undo.enter_context(_environment(world.device))
    if not dist.is_initialized():  # one worker needs none, but DeepSpeed does
        from torch.distributed import HashStore  # type: ignore[attr-defined]

        dist.init_process_group(backends(world.device.type), store=HashStore(), rank=0, world_size=1)
        undo.callback(dist.destroy_process_group)
    # Its autotuner imports MLflow where there is one, which takes longer than all the rest.
    absent = "mlflow" not in sys.modules
    if absent:
        sys.modules["mlflow"] = None  # type: ignore[assignment]
    try:
        import deepspeed
    finally:
        if absent:
            del sys.modules["mlflow"]
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # It calls collectives of torch by their old names.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    # Would be compiled for an all-reduce that only inference calls.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def compiled_adam(options: Optimizer, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """DeepSpeed's Adam for CPUs, which is compiled when it is first used on a machine.

    Raises:
        UsageError: the compiler fails.
    """
    assert isinstance(options, Adam | AdamW), "a checked job offloads no other optimizer"
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    try:
        adam: torch.optim.Optimizer = DeepSpeedCPUAdam(
            parameters, **options.arguments, adamw_mode=isinstance(options, AdamW)
        )
    except RuntimeError as error:
        raise UsageError(
            f"strategy.offload: DeepSpeed's Adam could not be compiled: {error.__cause__ or error}",
            hint="Install g++ and ninja on every machine, or say offload: false.",
        ) from error
    return adam


def start(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: dict[str, Any],
    world: World,
    traffic: Traffic,
    undo: ExitStack,
) -> tuple[Any, Backend]:
    """DeepSpeed's engine around a module, and the backend that it sends by.

    Args:
        traffic: counts what this worker sends.
        undo: is told how to leave the process as it was.

    Raises:
        UsageError: a setting that DeepSpeed does not take.
    """
    import deepspeed
    from deepspeed.comm import comm
    from deepspeed.runtime.config import DeepSpeedConfigError
    from deepspeed.runtime.zero.parameter_offload import DeepSpeedZeRoOffload
    from deepspeed.runtime.zero.partition_parameters import Init
    from deepspeed.utils import groups

    # Stage 3 compares its numbers of modules and parameters between the workers, and counts on from
    # one engine of a process to the next: all begin anew.
    Init.param_id = 0
    DeepSpeedZeRoOffload._register_deepspeed_module.__defaults__ = ([0],)
    # Stage 3 puts another function in this one's place, for good.
    undo.callback(setattr, nn.functional, "linear", nn.functional.linear)
    undo.callback(groups._release_process_group_references)
    undo.callback(setattr, comm, "cdb", None)
    try:
        engine, *_ = deepspeed.initialize(
            model=module, optimizer=optimizer, config=config, dist_init_required=False
        )
    except (ValueError, AssertionError, DeepSpeedConfigError) as error:
        raise UsageError(f"strategy.deepspeed: DeepSpeed refuses the settings: {error}") from error
    undo.callback(engine.destroy)
    comm.cdb = backend = Backend(comm.cdb, world.size, traffic)
    return engine, backend


def hold_less(optimizer: Any, stage: int, rank: int) -> None:
    """Rids DeepSpeed's optimizer of what it holds beyond ZeRO's formulas (arXiv:1910.02054).

    Both are ways of its own that it does not take here: stage 3 would use a view if a device equalled its
    name, which is what it compares, and one tensor of gradients is for where they are summed in another
    type than the parameters'. Tests of memory tell when a new version no longer listens.

    Args:
        optimizer: the engine's, of stage 1, 2 or 3, without offload.
        rank: this worker's.
    """
    # Where parameters are fp32 already, the optimizer updates them in place: a view, and no copy.
    if stage == 3:
        flats, cuts = optimizer.fp32_partitioned_groups_flat, optimizer.fp16_partitioned_groups_flat
    else:
        flats = optimizer.single_partition_of_fp32_groups
        cuts = [parts[rank] for parts in optimizer.parallel_partitioned_bit16_groups]
    for flat, cut in zip(flats, cuts, strict=True):
        if cut is not None and (cut.dtype, cut.device) == (flat.dtype, flat.device):
            flat.data = cut.data
    if stage == 3:
        return
    optimizer._link_all_hp_params()  # which look into the copies
    # Gradients are gathered in one tensor of this worker's part, and not in as many as lie in it, of
    # which those on both sides of a cut would be kept whole.
    optimizer._use_compact_grad_partition_buffer = lambda group: True
    if stage == 2:
        optimizer.copy_grads_in_partition = lambda parameter, group: optimizer.clear_grad_attribute(parameter)


@contextmanager
def _environment(device: torch.device) -> Iterator[None]:
    """The variables that DeepSpeed reads, now and then all the time that it works."""
    before = dict(os.environ)
    os.environ["DS_ACCELERATOR"] = device.type
    os.environ["LOCAL_RANK"] = str(device.index or 0)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


# How often the bytes of which argument travel when a ring calls them, times (n − 1) / n.
_SENT = {
    "all_reduce": ("tensor", 2),
    "reduce": ("tensor", 1),
    "reduce_scatter_tensor": ("input_tensor", 1),
    "all_gather_into_tensor": ("output_tensor", 1),
}


class Backend:
    """DeepSpeed's, with a count of what this worker sends."""

    def __init__(self, backend: Any, size: int, traffic: Traffic) -> None:
        self._backend = backend
        self._share = (size - 1) / size
        self._traffic = traffic

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._backend, name)
        return partial(self._count, call, *_SENT[name]) if name in _SENT else call

    def _count(self, call: Any, argument: str, times: int, *args: Any, **kwargs: Any) -> Any:
        tensor: Tensor = kwargs[argument] if argument in kwargs else args[0]
        with self._traffic.sending(times * self._share * tensor.nbytes):
            return call(*args, **kwargs)


def whole_shape(parameter: Any) -> torch.Size:
    """The whole parameter's: stage 3 leaves the parameter itself empty."""
    shape: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return shape


@contextmanager
def gathered(value: Any, *, changed: bool = False) -> Iterator[None]:
    """Around the use of what stage 3 cut and does not train; of anything else, nothing is done."""
    if not hasattr(value, "ds_id") or value.requires_grad:
        yield
        return
    import deepspeed
    from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

    if value.ds_status == ZeroParamStatus.AVAILABLE and not changed:
        yield  # DeepSpeed keeps small parameters gathered, and counts on finding them so
        return

    with deepspeed.zero.GatheredParameters(value, modifier_rank=0 if changed else None):
        yield
