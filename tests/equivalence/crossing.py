"""Checkpoints cross over: train under one strategy, go on under another, end where one worker would.

    PYTHONPATH=tests python tests/equivalence/crossing.py

prints the whole matrix: every ordered pair of strategies, from 2 workers to 1, 2 and 4; a mesh of 2 × 2
has 4. The suite runs a covering part of it. A pair trains a workload that both of its strategies allow.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from harness import POOL, Trained, job, train, with_workers

from dlsys.registry import STRATEGIES as STRATEGY_TABLE
from dlsys.spec.catalogue import WORKLOADS

STEPS, BEFORE = 12, 6
WORKLOADS_USED = {
    "lenet-5": "data: {source: digits}",
    # Its groups of rows are whole on each of four workers.
    "mixture-of-experts": "data: {source: piecewise, rows: 720}\nmodel: {group: 4, capacity: 1.0}",
}
JOB = f"""
kind: train
name: crossing
batch_size: 48
optimizer: {{name: adam, lr: 0.002}}
schedule: {{name: one-cycle, max_lr: 0.01}}
gradient: {{clip_norm: 1.0}}
stop: {{steps: {STEPS}}}
tracking: {{log_every: 1}}
"""
# `tensor` with `data: shard`.
MESH = "tensor × fsdp"
STRATEGIES = (*STRATEGY_TABLE.names(), MESH)


def shared_workload(*strategies: str) -> str | None:
    """The first workload that runs under all of them."""
    asked = {part for name in strategies for part in name.split(" × ")}
    fitting = (name for name in WORKLOADS_USED if asked <= {*WORKLOADS.load(name).strategies})
    return next(fitting, None)


class Crossing:
    """Runs of one workload, in a folder of their own.

    Attributes:
        truth: the uninterrupted run of one worker.
    """

    def __init__(self, workload: str, folder: Path) -> None:
        self._text = f"{JOB}workload: {workload}\n{WORKLOADS_USED[workload]}\n"
        self._folder = folder
        self.truth = train(job(self._text), folder / "whole")

    def _run(self, strategy: str, workers: int, folder: Path, stop_after: int | None = None) -> Trained:
        """Trains, or goes on; one worker is always `single`, and several never are."""
        name = "single" if workers == 1 else "ddp" if strategy == "single" else strategy
        chosen = "{name: tensor, size: 2, data: shard}" if name == MESH else f"{{name: {name}}}"
        spec = job(self._text, f"strategy={chosen}", f"resources.workers={workers}")
        return with_workers(spec, folder, stop_after=stop_after)

    def source(self, strategy: str) -> Path:
        """The folder of a run of 2 workers that stopped in the middle (1 for `single`, 4 for a mesh)."""
        folder = self._folder / strategy
        if not folder.exists():
            workers = {"single": 1, MESH: 4}.get(strategy, 2)
            self._run(strategy, workers, folder, stop_after=BEFORE)
        return folder

    def cross(self, begins: str, target: str, workers: int) -> float:
        """Goes on from a copy of `source`; the largest relative difference of a later step's loss."""
        folder = self._folder / f"{begins}-{target}-{workers}"
        shutil.copytree(self.source(begins), folder)
        losses = self._run(target, workers, folder).losses
        assert sorted(losses) == list(range(BEFORE + 1, STEPS + 1)), "it did not go on where it stopped"
        return max(abs(losses[step] / self.truth.losses[step] - 1) for step in losses)


def main() -> None:
    print("| from 2 workers \\ to |", " | ".join(STRATEGIES), "|")
    print("|---" * (len(STRATEGIES) + 1) + "|")
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        crossings = {workload: Crossing(workload, Path(name, workload)) for workload in WORKLOADS_USED}
        for begins in STRATEGIES:
            cells = []
            for target in STRATEGIES:
                workload = shared_workload(begins, target)
                if workload is None:
                    cells.append("no workload allows both")
                    continue
                counts = {"single": (1,), MESH: (4,)}.get(target, (2, 4))
                found = [crossings[workload].cross(begins, target, n) for n in counts]
                worst = max(worst, *found)
                cells.append(" / ".join(f"{value:.0e}" for value in found))
            print(f"| {begins} |", " | ".join(cells), "|", flush=True)
    POOL.close()
    print(f"\nThe largest: {worst:.1e}", file=sys.stderr)
    sys.exit(worst > 1e-4)


if __name__ == "__main__":
    main()
