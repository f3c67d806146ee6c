"""Sweeps for tests, without a job and without files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dlsys.spec.sweep.sweep import Sweep
from dlsys.tune.searcher import Searcher, Told
from dlsys.tune.searchers import searcher_of

CONDITIONAL = {
    "optimizer": {
        "choice": [
            {"name": "sgd", "lr": {"log_uniform": [1e-4, 1.0]}, "momentum": {"uniform": [0, 0.99]}},
            {"name": "adam", "lr": {"log_uniform": [1e-5, 0.1]}},
            {"name": "lamb", "lr": {"log_uniform": [1e-5, 0.1]}},
        ]
    },
    "batch_size": {"int": [16, 256], "log": True},
    "model.dropout": {"uniform": [0, 0.5], "step": 0.1},
    "model.width": {"choice": [0.5, 1.0, 2.0]},
    "model.depth": {"int": [1, 12]},
}


def sweep_of(space: dict[str, Any], searcher: str | dict[str, Any], **more: Any) -> Sweep:
    named = {"name": searcher} if isinstance(searcher, str) else searcher
    usual = {"kind": "sweep", "name": "s", "job": "j.yaml", "metric": "valid/loss", "mode": "min"}
    return Sweep.model_validate({**usual, "space": space, "searcher": named, "trials": 1000, **more})


def search(
    searcher: Searcher, function: Callable[[dict[str, Any]], float | None], trials: int
) -> list[tuple[dict[str, Any], float | None]]:
    """Trials one after the other: what was proposed, and how it did."""
    done = []
    for trial in range(trials):
        settings = searcher.propose(trial)
        if settings is None:
            break
        value = function(settings)
        searcher.tell(Told(trial, settings, value, None))
        done.append((settings, value))
    return done


def best(space: dict[str, Any], name: str, function: Callable[..., float], trials: int, **more: Any) -> float:
    """The smallest value that a search finds."""
    done = search(searcher_of(sweep_of(space, name, **more)), function, trials)
    return min(value for _, value in done if value is not None)
