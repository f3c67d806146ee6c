"""Whether all workers have the same rows.

The order of rows is by number: of workers that count otherwise, some rows would be trained on twice and
others never, without a word.
"""

from __future__ import annotations

import hashlib

import numpy as np

from dlsys.data.dataset import Dataset, Splits
from dlsys.errors import DataError
from dlsys.train.world import World

_LOOKED_AT = 16


def require_same_rows(splits: Splits, world: World) -> None:
    """Compares the numbers of rows, and some rows' classes; fields may be drawn anew at each look.

    Called on every worker.

    Raises:
        DataError: they differ, on all workers.
    """
    if world.size == 1:
        return
    parts = [part for part in (splits.train, splits.valid, splits.test) if part is not None]
    told = ", ".join(f"{len(part):,}" for part in parts)
    seen = hashlib.sha256(b"".join([told.encode(), *map(_classes, parts)])).digest()
    number = float(int.from_bytes(seen[:6], "big"))  # which a double holds
    if world.max(number) != -world.max(-number):
        raise DataError(
            f"data: the workers do not have the same rows; this one (rank {world.rank}) has {told}",
            hint="A function that shuffles or draws rows needs a seed of its own; files must be alike on all "
            "nodes.",
        )


def _classes(rows: Dataset) -> bytes:
    """Those of some rows that are spread evenly; nothing where rows have none."""
    chosen = np.unique(np.linspace(0, len(rows) - 1, _LOOKED_AT).astype(np.int64))
    label = rows.batch(chosen).get("label")
    return b"" if label is None or label.is_floating_point() else label.cpu().numpy().tobytes()
