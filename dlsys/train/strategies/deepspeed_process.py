"""DeepSpeed in a worker's process: what it wants to find there, and what it must not leave behind."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dlsys.errors import UsageError
from dlsys.spec.optimizer import Adam, AdamW, Optimizer
from dlsys.train.world import World


def prepare(world: World, undo: ExitStack) -> None:
    """Imports DeepSpeed, for this worker.

    Args:
        undo: is told how to leave the process as it was.
    """
    undo.enter_context(_environment(world.device))
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

    fields = options.model_dump(exclude={"name"})
    try:
        adam: torch.optim.Optimizer = DeepSpeedCPUAdam(
            parameters, **fields, adamw_mode=isinstance(options, AdamW)
        )
    except RuntimeError as error:
        raise UsageError(
            f"strategy.offload: DeepSpeed's Adam could not be compiled: {error.__cause__ or error}",
            hint="Install g++ and ninja on every machine, or say offload: false.",
        ) from error
    return adam


def start(
    module: nn.Module, optimizer: torch.optim.Optimizer, config: dict[str, Any], world: World, undo: ExitStack
) -> tuple[Any, Traffic]:
    """DeepSpeed's engine around a module, and the count of what it sends.

    Args:
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
    comm.cdb = traffic = Traffic(comm.cdb, world.size)
    return engine, traffic


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


class Traffic:
    """DeepSpeed's backend, counting what this worker sends.

    Attributes:
        sent: bytes.
        seconds: spent in the calls.
    """

    def __init__(self, backend: Any, size: int) -> None:
        self._backend = backend
        self._share = (size - 1) / size
        self._counting = False
        self.sent = self.seconds = 0.0

    @contextmanager
    def counted(self) -> Iterator[None]:
        self._counting = True
        try:
            yield
        finally:
            self._counting = False

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._backend, name)
        return partial(self._count, call, *_SENT[name]) if self._counting and name in _SENT else call

    def _count(self, call: Any, argument: str, times: int, *args: Any, **kwargs: Any) -> Any:
        tensor: Tensor = kwargs[argument] if argument in kwargs else args[0]
        self.sent += times * self._share * tensor.numel() * tensor.element_size()
        begun = time.perf_counter()
        result = call(*args, **kwargs)
        self.seconds += time.perf_counter() - begun
        return result
