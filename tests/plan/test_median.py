"""The median rule against the paper's definition, computed from nothing at each report."""

from __future__ import annotations

import random
import statistics

from dealing import Player, policy, sweep
from hypothesis import given, settings
from hypothesis import strategies as st

from dlsys.plan.policies import policy_of
from dlsys.plan.policy import Leg


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    trials=st.integers(1, 20),
    workers=st.integers(1, 20),
    mode=st.sampled_from(["max", "min"]),
)
def test_who_is_stopped_is_as_in_the_paper(seed: int, trials: int, workers: int, mode: str) -> None:
    rng = random.Random(seed)
    median = policy("median", trials, mode, epochs=9, grace="3 epochs", min_samples=4)
    curves: dict[int, list[float]] = {}
    running: list[Leg] = []
    while True:
        while len(running) < workers and (leg := median.next()):
            median.begin(leg)
            running.append(leg)
        if not running:
            return
        leg = running.pop(rng.randrange(len(running)))
        curve = curves.setdefault(leg.trial, [])
        assert leg.until == len(curve) + 1
        curve.append(rng.gauss(leg.trial / trials, 0.3))
        epoch = len(curve)
        others = [
            statistics.fmean(other[:epoch])
            for trial, other in curves.items()
            if trial != leg.trial and len(other) >= epoch
        ]
        stopped = False
        if 3 <= epoch < 9 and len(others) >= 4:
            middle = statistics.median(others)
            stopped = max(curve) < middle if mode == "max" else min(curve) > middle
        expected = "stopped" if stopped else "done" if epoch == 9 else "waits"
        assert median.report(leg.trial, epoch, curve[-1]) == expected


def test_a_trial_goes_on_before_a_new_one_begins() -> None:
    player = Player(policy("median", 3), random.Random(0))
    for _ in range(2):
        player.begin()
    player.end()
    (waiting,) = (trial for trial, verdict in player.policy.verdicts().items() if verdict == "waits")
    assert player.policy.next() == Leg(waiting, 2)


def test_a_trial_that_ends_by_another_rule_is_done() -> None:
    median = policy_of(sweep("median", 1), None, every=2)
    median.begin(Leg(0, 2))
    assert median.report(0, 2, 0.5) == "waits"
    median.begin(Leg(0, 4))
    assert median.report(0, 3, 0.5) == "done"
    assert median.next() is None
