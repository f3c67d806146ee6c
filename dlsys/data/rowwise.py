"""Random numbers that belong to a row, not to a worker.

A generator's stream depends on which worker draws from it and on how often; these numbers depend
on a row's key alone, so that augmentation and noise are the same under any number of workers and
after any resume. The generator is counter-based: splitmix64 (Steele, Lea and Flood 2014) of the
key and the draw's index.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = x ^ (x >> np.uint64(31))
    return mixed


def keys(seed: int, epoch: int, rows: np.ndarray) -> Tensor:
    """A key for each row: int64, shape (n,)."""
    with np.errstate(over="ignore"):
        base = _mix(np.array([seed], dtype=np.uint64) * _GAMMA + np.uint64(epoch + 1))
        mixed = _mix(base + (rows.astype(np.uint64) + np.uint64(1)) * _GAMMA)
    return torch.from_numpy(mixed.view(np.int64))


def uniform(keys: Tensor, draws: int, *, stream: int = 0) -> Tensor:
    """Uniform numbers in [0, 1): float32, shape (rows, draws).

    Args:
        keys: a batch's `key`.
        draws: numbers for each row.
        stream: separates uses of the same keys.
    """
    return torch.from_numpy(_uniform(keys, draws, stream).astype(np.float32)).to(keys.device)


def normal(keys: Tensor, draws: int, *, stream: int = 0) -> Tensor:
    """Standard normal numbers (Box and Muller 1958): float32, shape (rows, draws)."""
    first = _uniform(keys, draws, 2 * stream)
    second = _uniform(keys, draws, 2 * stream + 1)
    value = np.sqrt(-2.0 * np.log1p(-first)) * np.cos(2.0 * np.pi * second)
    return torch.from_numpy(value.astype(np.float32)).to(keys.device)


def _uniform(keys: Tensor, draws: int, stream: int) -> np.ndarray:
    base = keys.cpu().numpy().view(np.uint64)[:, None]
    index = np.arange(1, draws + 1, dtype=np.uint64)[None, :]
    with np.errstate(over="ignore"):
        mixed = _mix(_mix(base + np.uint64(stream) * np.uint64(0xD1B54A32D192ED03)) + index * _GAMMA)
    # 24 bits: the most that float32 keeps below 1.
    unit: np.ndarray = (mixed >> np.uint64(40)).astype(np.float64) / float(1 << 24)
    return unit
