"""A job as a Python program gives it: one worker, seconds."""

from __future__ import annotations

from typing import Any

JOB: dict[str, Any] = {
    "kind": "train",
    "name": "digits",
    "workload": "lenet-5",
    "data": {"source": "digits"},
    "batch_size": 64,
    "optimizer": {"name": "sgd", "lr": 0.05},
    "stop": {"epochs": 2},
    "checkpoint": {"every": "1 epoch", "best": "valid/accuracy"},
    "tracking": {"log_every": 5},
}
