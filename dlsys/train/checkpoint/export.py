"""A checkpoint's weights as one plain file that needs nothing of dlsys."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from dlsys.errors import UsageError
from dlsys.train.checkpoint.snapshot import Saved
from dlsys.train.checkpoint.store import CheckpointStore, read


def chosen(checkpoints: Path, *, best: bool = False) -> Saved:
    """The newest good checkpoint of a run's folder, or its best one.

    Raises:
        UsageError: there is none.
        CheckpointError: all are damaged, or the best one is.
    """
    store = CheckpointStore(checkpoints, keep=1)
    place = store.best() if best else None
    saved = read(place) if place else None if best else store.latest()
    if saved is None:
        kind = "best checkpoint (checkpoint.best names its metric)" if best else "checkpoint"
        raise UsageError(f"{checkpoints.parent.name} has no {kind} yet")
    return saved


def best_or_latest(checkpoints: Path) -> Saved:
    """The checkpoint that was tested: the best one where one is watched for, else the newest good one.

    Raises:
        UsageError, CheckpointError: as `chosen`.
    """
    return chosen(checkpoints, best=CheckpointStore(checkpoints, keep=1).best() is not None)


def export(checkpoints: Path, target: Path, *, best: bool = False) -> tuple[int, int]:
    """Writes the newest good checkpoint's parameters and buffers, by their names in the plain model; of a run
    with `average`, the average.

    What was learnt from the data (means, categories, the names of classes) goes into a `.json` beside it.

    Args:
        checkpoints: a run's folder of checkpoints.
        target: `.safetensors`, or `.pt` for `torch.load(..., weights_only=True)`.
        best: takes the best checkpoint.

    Returns:
        The checkpoint's step, and how many numbers were written.

    Raises:
        UsageError: there is no checkpoint, or `target` cannot be written.
        CheckpointError: all are damaged, or the best one is.
    """
    saved = chosen(checkpoints, best=best)
    learnt = saved.loop.get("learnt")
    # Tied parameters are one tensor under two names, which safetensors refuses.
    weights = {name: tensor.clone().contiguous() for name, tensor in saved.weights.items()}
    try:
        if target.suffix == ".safetensors":
            save_file(weights, target)
        else:
            torch.save(weights, target)
        if learnt:
            target.with_suffix(".json").write_text(json.dumps(learnt, indent=1, ensure_ascii=False))
    except (OSError, RuntimeError, SafetensorError) as error:  # torch has its own for a missing folder
        reason = str(error).splitlines()[0]
        raise UsageError(f"{target}: cannot be written: {reason}") from error
    return saved.position.step, sum(tensor.numel() for tensor in weights.values())
