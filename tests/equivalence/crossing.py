"""Checkpoints cross over: train under one strategy, go on under another, end where one worker would.

    PYTHONPATH=tests python tests/equivalence/crossing.py

prints the whole matrix: every ordered pair of strategies, from 2 workers to 1, 2 and 4. The suite
runs a covering part of it.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from harness import POOL, Trained, job, train, with_workers

from dlsys.registry import WORKLOADS

STEPS, BEFORE = 12, 6
JOB = f"""
kind: train
name: crossing
workload: lenet-5
data: {{source: digits}}
batch_size: 48
optimizer: {{name: adam, lr: 0.002}}
schedule: {{name: one-cycle, max_lr: 0.01}}
gradient: {{clip_norm: 1.0}}
stop: {{steps: {STEPS}}}
tracking: {{log_every: 1}}
"""
STRATEGIES = WORKLOADS.load("lenet-5").strategies


def run(strategy: str, workers: int, folder: Path, stop_after: int | None = None) -> Trained:
    """Trains, or goes on, in a folder; one worker is always `single`, and several never are."""
    name = "single" if workers == 1 else "ddp" if strategy == "single" else strategy
    spec = job(JOB, f"strategy={{name: {name}}}", f"resources.workers={workers}")
    return with_workers(spec, folder, stop_after=stop_after)


def whole(folder: Path) -> Trained:
    """The uninterrupted run of one worker."""
    return train(job(JOB), folder)


def source(strategy: str, folder: Path) -> Path:
    """The folder of a run of 2 workers that stopped in the middle (1 for `single`)."""
    run(strategy, 1 if strategy == "single" else 2, folder, stop_after=BEFORE)
    return folder


def cross(begun: Path, target: str, workers: int, truth: Trained, folder: Path) -> float:
    """Goes on from a copy of `begun`; the largest relative difference of a later step's loss."""
    shutil.copytree(begun, folder)
    losses = run(target, workers, folder).losses
    assert sorted(losses) == list(range(BEFORE + 1, STEPS + 1)), "it did not go on where it stopped"
    return max(abs(losses[step] / truth.losses[step] - 1) for step in losses)


def main() -> None:
    print("| from 2 workers \\ to |", " | ".join(STRATEGIES), "|")
    print("|---" * (len(STRATEGIES) + 1) + "|")
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        truth = whole(root / "whole")
        for begins in STRATEGIES:
            begun = source(begins, root / begins)
            cells = []
            for target in STRATEGIES:
                counts = (1,) if target == "single" else (2, 4)
                found = [cross(begun, target, n, truth, root / f"{begins}-{target}-{n}") for n in counts]
                worst = max(worst, *found)
                cells.append(" / ".join(f"{value:.0e}" for value in found))
            print(f"| {begins} |", " | ".join(cells), "|", flush=True)
    POOL.close()
    print(f"\nThe largest: {worst:.1e}", file=sys.stderr)
    sys.exit(worst > 1e-4)


if __name__ == "__main__":
    main()
