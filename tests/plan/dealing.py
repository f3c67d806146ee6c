"""Plays a policy with made-up values: workers that take legs, report in any order, and fail."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dlsys.plan.policies import policy_of
from dlsys.plan.policy import Leg, Policy
from dlsys.spec.sweep.sweep import Sweep

EPOCHS = 27
HALVING = {"max": "27 epochs", "grace": "1 epoch", "reduction": 3}
SCHEDULERS: dict[str, dict[str, Any]] = {
    "fifo": {},
    "successive-halving": HALVING,
    "hyperband": HALVING,
    "asha": HALVING,
    "median": {"grace": "3 epochs"},
    "pbt": {"every": "3 epochs", "mutate": ["optimizer.lr"]},
}


def sweep(name: str, trials: int, mode: str = "max", **options: Any) -> Sweep:
    return Sweep.model_validate(
        {
            "kind": "sweep",
            "name": "x",
            "job": "x.yaml",
            "metric": "valid/loss",
            "mode": mode,
            "space": {"optimizer.lr": {"log_uniform": [1e-4, 1.0]}},
            "scheduler": {"name": name} | (options or SCHEDULERS[name]),
            "trials": trials,
        }
    )


def policy(name: str, trials: int, mode: str = "max", epochs: int | None = EPOCHS, **options: Any) -> Policy:
    return policy_of(sweep(name, trials, mode, **options), epochs)


@dataclass
class Player:
    """Attributes:
    calls: what the policy was told, in order; each is its method's name and arguments.
    reached: the trials that reported at each epoch.
    """

    policy: Policy
    rng: random.Random
    value: Callable[[int, int], float] | None = None
    running: dict[int, Leg] = field(default_factory=dict)
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    reached: dict[int, list[int]] = field(default_factory=dict)
    legs: list[Leg] = field(default_factory=list)

    def begin(self) -> bool:
        """Starts what the policy names, if anything."""
        before = copy.deepcopy(vars(self.policy))
        leg = self.policy.next()
        assert self.policy.next() == leg
        assert vars(self.policy) == before, "next changes something"
        if leg is None:
            return False
        assert leg.trial not in self.running
        self._call("begin", leg)
        assert leg.trial not in self.policy.verdicts()
        self.running[leg.trial] = leg
        self.legs.append(leg)
        return True

    def end(self, failures: float = 0.0) -> None:
        """One of the running trials reports or fails."""
        trial = self.rng.choice(sorted(self.running))
        leg = self.running.pop(trial)
        if self.rng.random() < failures:
            self._call("fail", trial)
            assert self.policy.verdicts()[trial] == "stopped"
            return
        epoch = leg.until or EPOCHS
        value = self.value(trial, epoch) if self.value else self._drawn()
        self.reached.setdefault(epoch, []).append(trial)
        verdict = self._call("report", trial, epoch, value)
        assert self.policy.verdicts()[trial] == verdict

    def _drawn(self) -> float:
        """Ties and NaN are as likely as they can be."""
        return self.rng.choice([*map(float, range(9)), self.rng.random(), float("nan"), float("inf")])

    def _call(self, name: str, *arguments: Any) -> Any:
        self.calls.append((name, *arguments))
        return getattr(self.policy, name)(*arguments)

    def play(self, workers: int, failures: float = 0.0) -> Player:
        while True:
            while len(self.running) < workers and self.begin():
                pass
            if not self.running:
                return self
            self.end(failures)
