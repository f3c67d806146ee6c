"""ASHA against its algorithm as the paper writes it, and who is stopped when."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field

from dealing import Player, policy
from hypothesis import given, settings
from hypothesis import strategies as st

from dlsys.plan.policy import Leg, Policy

RUNGS = [1, 3, 9, 27]


@dataclass
class Algorithm2:
    """`get_job` of Li et al. 2018, of all reports so far, from nothing each time."""

    trials: int
    begun: int = 0
    rungs: list[dict[int, float]] = field(default_factory=lambda: [{} for _ in RUNGS])
    promoted: list[set[int]] = field(default_factory=lambda: [set() for _ in RUNGS])

    def get_job(self) -> Leg | None:
        for k in reversed(range(len(RUNGS) - 1)):
            top = sorted(self.rungs[k], key=lambda t: (-self.rungs[k][t], t))[: len(self.rungs[k]) // 3]
            promotable = [t for t in top if t not in self.promoted[k]]
            if promotable:
                return Leg(promotable[0], RUNGS[k + 1])
        return Leg(self.begun, RUNGS[0]) if self.begun < self.trials else None

    def begin(self, leg: Leg) -> None:
        if leg.until == RUNGS[0]:
            self.begun += 1
        else:
            self.promoted[RUNGS.index(leg.until or 0) - 1].add(leg.trial)


@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 2**32),
    trials=st.integers(1, 80),
    workers=st.integers(1, 90),
    failures=st.sampled_from([0, 0.2]),
)
def test_who_is_promoted_is_as_in_the_paper(seed: int, trials: int, workers: int, failures: float) -> None:
    rng = random.Random(seed)
    asha, paper = policy("asha", trials), Algorithm2(trials)
    running: list[Leg] = []
    while True:
        while len(running) < workers:
            leg = asha.next()
            assert leg == paper.get_job()
            if leg is None:
                break
            asha.begin(leg)
            paper.begin(leg)
            running.append(leg)
        if not running:
            return
        leg = running.pop(rng.randrange(len(running)))
        assert leg.until is not None
        if rng.random() < failures:
            asha.fail(leg.trial)
            continue
        value = rng.choice([rng.random(), 0.5])
        asha.report(leg.trial, leg.until, value)
        paper.rungs[RUNGS.index(leg.until)][leg.trial] = value


def best_future(asha: Policy, running: list[Leg], trial: int, rung: int) -> bool:
    """Whether a trial that waits at a rung is promoted if all goes as well for it as it can.

    At its rung all others are worse; below, each is better than the one before, so that all go on.
    """
    rising = iter(range(10**6, 10**7))
    running = list(running)
    while True:
        while leg := asha.next():
            if leg.trial == trial:
                return True
            asha.begin(leg)
            running.append(leg)
        running.sort(key=lambda leg: leg.until or 0, reverse=True)
        if not running:
            return False
        leg = running.pop()
        assert leg.until is not None
        asha.report(leg.trial, leg.until, -1.0 if leg.until >= rung else float(next(rising)))


@settings(deadline=None, max_examples=120)
@given(
    seed=st.integers(0, 2**32),
    trials=st.integers(1, 25),
    workers=st.integers(1, 25),
    at=st.integers(0, 60),
)
def test_trials_wait_exactly_as_long_as_they_may_be_promoted(
    seed: int, trials: int, workers: int, at: int
) -> None:
    """That stopped ones are never promoted is in the test above."""
    rng = random.Random(seed)
    player = Player(policy("asha", trials), rng, lambda trial, epoch: rng.random())
    for _ in range(at):
        if not (len(player.running) < workers and player.begin()) and player.running:
            player.end(0.1)
    for trial, verdict in player.policy.verdicts().items():
        if verdict == "waits":
            rung = max(epoch for epoch, there in player.reached.items() if trial in there)
            future = copy.deepcopy(player.policy)
            assert best_future(future, list(player.running.values()), trial, rung)


def test_a_trial_that_cannot_be_promoted_any_more_is_told_at_once() -> None:
    asha = policy("asha", 9)
    for trial in range(9):
        asha.begin(Leg(trial, 1))
    values = [5, 6, 7, 4, 8]
    verdicts = [asha.report(trial, 1, values[trial]) for trial in range(5)]
    # Of 9 trials 3 can be among the best third; the fourth-best of the first four cannot.
    assert verdicts == ["waits", "waits", "waits", "stopped", "waits"]
    assert asha.verdicts()[0] == "stopped", "three are better now"
    assert asha.next() == Leg(4, 3)
