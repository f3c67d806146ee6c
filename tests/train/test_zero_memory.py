"""What a worker holds at each stage: ZeRO's formulas (arXiv:1910.02054)."""

from __future__ import annotations

import gc
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import in_workers, job, train

from dlsys.registry import STRATEGIES
from dlsys.spec import TrainJob
from dlsys.train.strategies.zero import ZeroStrategy
from dlsys.train.world import World

# Stage 3 would keep a model as small as this one gathered.
JOB = """
kind: train
name: test
workload: resnet
model: {depth: 20, norm: group}
data: {source: digits}
batch_size: 48
optimizer: {name: adam, lr: 0.001}
strategy:
  name: zero
  deepspeed:
    zero_optimization:
      reduce_bucket_size: 10000
      stage3_param_persistence_threshold: 0
      stage3_max_live_parameters: 0
      stage3_max_reuse_distance: 0
stop: {steps: 2}
"""


def formula(stage: int, n: int) -> float:
    """Bytes per parameter in fp32: parameters, gradients and Adam's two moments, cut by n or not.

    DeepSpeed's optimizer works on a copy of its part of the parameters even where they are fp32
    already: 4/n more than in the paper.
    """
    parameters = 4 / n if stage == 3 else 4
    gradients = 4 / n if stage >= 2 else 4
    return parameters + gradients + 8 / n + 4 / n


@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_worker_holds_its_share(stage: int, workers: int) -> None:
    spec = job(JOB, f"strategy.stage={stage}", f"resources.workers={workers}")
    for parameters, largest, held in in_workers(workers, held_behind_backward, spec):
        expected = parameters * formula(stage, workers)
        assert held > 0.99 * expected
        # Stage 2 keeps the whole gradient of a tensor that lies on both sides of a cut.
        assert held < 1.05 * expected + (4 * largest if stage == 2 else 0)


def held_behind_backward(world: World, job: TrainJob) -> tuple[int, int, int]:
    """Parameters of the whole model and of its largest tensor; bytes of all tensors that the strategy
    made and holds where backward ends, when the last gradients are not yet reduced."""
    found: list[tuple[int, int, int]] = []

    class Watched(ZeroStrategy):
        def setup(self, parts: Any) -> None:
            self.before = _tensors()  # and kept, for no other tensor to take their place in memory
            super().setup(parts)

            self.allreduce = self._engine.allreduce_gradients
            self._engine.allreduce_gradients = self.measure

        def measure(self, *arguments: Any) -> None:
            others = _bytes(self.before)
            held = {place: size for place, size in _bytes(_tensors()).items() if place not in others}
            sizes = [getattr(p, "ds_numel", p.numel()) for p in self._phases[0].parameters]
            found.append((sum(sizes), max(sizes), sum(held.values())))
            self.allreduce(*arguments)

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(STRATEGIES, "load", lambda name: Watched)
        train(job, Path(folder), world=world)
    return found[-1]


def _tensors() -> list[torch.Tensor]:
    """All that Python knows, and their gradients, which it does not know."""
    gc.unfreeze()  # what the engine hid from the collector
    gc.collect()
    # By type: asking any object for its class wakes torch's deprecated ones.
    known = [item for item in gc.get_objects() if issubclass(type(item), torch.Tensor)]
    return known + [item.grad for item in known if item.is_leaf and item.grad is not None]


def _bytes(tensors: list[torch.Tensor]) -> dict[int, int]:
    """Of the memory behind tensors, by its address."""
    storages = [tensor.untyped_storage() for tensor in tensors]
    return {storage.data_ptr(): storage.nbytes() for storage in storages}
