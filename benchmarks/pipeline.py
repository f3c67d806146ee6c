"""The bubble of a pipeline of two equal stages, against (stages − 1) / (micro-batches + stages − 1).

    python benchmarks/pipeline.py [--quick] [--repetitions 16] [--schedule 1f1b]

Two processes of one thread each train a stack of equal dense layers by dlsys's pipeline strategy, for
2, 4 and 8 micro-batches of the same size. The bubble is 1 − ideal/actual, where actual is the time from
a step's common start until the last worker has no piece left, and ideal the processor time of a
worker's own pieces when it need not wait: both compute their own stage at the same time and send
nothing. The slower stage's ideal counts, the last one's: the first finds no gradient of its input, and
the idling that comes of that is imbalance, not bubble. Ideals and steps take turns; of each the
shortest counts, which the machine's other work disturbed least. The ratio to the formula is shown as
the larger over the smaller; the spread takes one worker's ideal, and then the other's.

It needs two cores to itself: where two workers share a core, one that waits makes the other quicker,
and the bubble comes out smaller than the formula's.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from side_by_side import Row, report
from torch import Tensor, nn

from dlsys.data.dataset import Batch
from dlsys.data.loader import MicroBatch, StepBatch
from dlsys.jobs.launch.resources import bind_cores
from dlsys.spec import yaml
from dlsys.spec.load import check
from dlsys.spec.rows import Shape
from dlsys.train.regularize import Regularizers
from dlsys.train.strategies.base import Parts
from dlsys.train.strategies.pipeline import PipelineStrategy
from dlsys.train.world import World
from dlsys.zoo.workload import Carry, Loss, NoOptions, Workload

_STAGES = 2
_WIDTH = 1024
_LAYERS = 16  # of each stage
_ROWS = 128  # of each micro-batch


class Stack(Workload):
    """Equal dense layers."""

    def build(self) -> nn.Module:
        layers = [nn.Sequential(nn.Linear(_WIDTH, _WIDTH), nn.ReLU()) for _ in range(_STAGES * _LAYERS)]
        return nn.Sequential(*layers)

    def forward(self, model: nn.Module, batch: Batch, carry: Carry) -> tuple[Tensor, Carry]:
        return model(batch["input"]), carry

    def objective(self, outputs: Tensor, batch: Batch) -> Loss:
        return Loss(outputs.square().mean())


def job(schedule: str, pieces: int) -> str:
    return f"""
kind: train
name: pipeline
workload: pipeline:Stack
data: {{source: digits}}
batch_size: {pieces * _ROWS}
optimizer: {{name: sgd, lr: 0.001}}
strategy: {{name: pipeline, schedule: {schedule}, micro_batches: {pieces}}}
resources: {{workers: {_STAGES}}}
stop: {{steps: 1}}
"""


def ideal(blocks: nn.Module, first: bool, pieces: int) -> float:
    """Processor seconds of one worker's part of a step: each piece forward, then back."""
    given = torch.rand(_ROWS, _WIDTH)
    gradient = torch.rand(_ROWS, _WIDTH)
    dist.barrier()
    begun = time.thread_time()
    for _ in range(pieces):
        blocks(given.detach().requires_grad_(not first)).backward(gradient)
    return time.thread_time() - begun


def worker(rank: int, folder: str, schedule: str, pieces: int, repetitions: int) -> None:
    """Writes the bubble by this worker's ideal."""
    torch.set_num_threads(1)
    bind_cores(1, rank, _STAGES)  # as the launcher does
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet-{pieces}", rank=rank, world_size=_STAGES
    )
    world = World(rank=rank, local_rank=rank, size=_STAGES, backend="gloo")
    spec = check(yaml.read(job(schedule, pieces), "pipeline.yaml"))
    strategy = PipelineStrategy()
    workload = Stack(NoOptions(), Shape(row={"input": (_WIDTH,)}))
    strategy.setup(Parts(spec, workload, Regularizers(()), world))
    rows = pieces * _ROWS
    batch = {"input": torch.rand(rows, _WIDTH), "key": torch.arange(rows)}
    step = StepBatch([MicroBatch(batch, 1.0, rows)], rows)
    alone = nn.Sequential(*(block for _, stage in strategy._stages for block in stage))
    ideals, actuals = [], []
    for turn in range(1, repetitions + 1):
        ideals.append(ideal(alone, rank == 0, pieces))
        dist.barrier()
        strategy.train_step(step, turn, {"lr": 0.001, "momentum": None})
        # The first stage is the last to finish: others' idle time at the end is bubble too.
        longest = torch.tensor(strategy._traffic.seconds)
        dist.all_reduce(longest, dist.ReduceOp.MAX)
        actuals.append(float(longest))
    Path(folder, f"{pieces}-{rank}").write_text(str(1 - min(ideals) / min(actuals)))
    dist.barrier()
    dist.destroy_process_group()


def measure(schedule: str, pieces: int, repetitions: int) -> Row:
    formula = (_STAGES - 1) / (pieces + _STAGES - 1)
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(worker, (folder, schedule, pieces, repetitions), nprocs=_STAGES)
        found = [float(Path(folder, f"{pieces}-{rank}").read_text()) for rank in range(_STAGES)]
    measured = min(found)
    return Row(
        work=f"bubble of {schedule}, {pieces} micro-batches",
        peer=f"formula, {_STAGES} stages",
        ours=measured,
        theirs=formula,
        ratio=max(measured / formula, formula / measured),
        spread=(min(found) / formula, max(found) / formula),
        unit="",
        goal="<= 1.2",
        load=os.getloadavg()[0],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="five turns")
    parser.add_argument("--repetitions", type=int, default=16)
    parser.add_argument("--schedule", choices=["gpipe", "1f1b"], default="1f1b")
    arguments = parser.parse_args()
    repetitions = 5 if arguments.quick else arguments.repetitions
    report("pipeline", [measure(arguments.schedule, pieces, repetitions) for pieces in (2, 4, 8)])


if __name__ == "__main__":
    main()
