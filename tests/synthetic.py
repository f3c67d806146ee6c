"""Sweeps that are trained by a formula, on a clock of their own: ledgers as real ones would be."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import QUICK, job

from dlsys.spec.sweep.sweep import Sweep
from dlsys.tune import ledger
from dlsys.tune.director import Director, Order

EPOCHS = 9
TRAINED = job(QUICK, f"stop={{epochs: {EPOCHS}}}")
SPACE: dict[str, Any] = {
    "optimizer.lr": {"log_uniform": [1e-4, 1.0]},
    "model.width": {"choice": [0.5, 1.0, 2.0]},
}

Answer = Callable[[Order, int], float | str]


def by_lr(order: Order, epoch: int) -> float:
    """An accuracy that only the learning rate decides: the best one is 0.01."""
    off = math.log10(order.settings["optimizer.lr"]) + 2
    return (1 - 0.5**epoch) * (0.95 - 0.1 * off * off)


def direct(path: Path, **changes: Any) -> Director:
    told = {
        "kind": "sweep",
        "name": "made-up",
        "job": "j.yaml",
        "metric": "valid/accuracy",
        "mode": "max",
        "space": SPACE,
        "scheduler": {"name": "asha", "max": f"{EPOCHS} epochs"},
        "trials": 30,
        "retries": 1,
        **changes,
    }
    return Director(Sweep.model_validate(told), TRAINED, ledger.Ledger(path))


def train(
    director: Director,
    monkeypatch: pytest.MonkeyPatch,
    answer: Answer = by_lr,
    *,
    workers: int = 2,
    orders: int = 1_000_000,
) -> Director:
    """Trains, a second an epoch.

    Args:
        answer: the value of an order at an epoch; a text is the cause of a crash.
        orders: after so many, the sweep is left as it is.
    """
    draw, now = random.Random(0), 1e9
    held: list[tuple[float, Order]] = []
    monkeypatch.setattr(ledger.time, "time", lambda: now)
    while not director.finished and orders:
        while len(held) < workers and (order := director.next()):
            held.append((now + (order.until or EPOCHS) * draw.uniform(1, 2), order))
        held.sort(key=lambda item: item[0])
        now, order = held.pop(0)
        orders -= 1
        epoch = order.until or EPOCHS
        if order.tested:
            director.tested(order.trial, {"test/accuracy": 0.875})
            continue
        found = answer(order, epoch)
        if isinstance(found, str):
            director.crashed(order.trial, found, retry=True)
        else:
            before = director.trials[order.trial].epoch
            director.reported(
                order.trial, epoch, found, float(epoch - before), {director.sweep.metric: found}
            )
    return director
