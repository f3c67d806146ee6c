"""What every policy keeps, and each one's own rule."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from dealing import EPOCHS, SCHEDULERS, Player, policy
from hypothesis import given, settings
from hypothesis import strategies as st

from dlsys.errors import UsageError
from dlsys.plan.policy import Leg, Policy

NAMES = st.sampled_from(list(SCHEDULERS))
SEEDS = st.integers(0, 2**32)


def decisions(policy: Policy) -> tuple[Leg | None, dict[int, str]]:
    return policy.next(), dict(policy.verdicts())


@settings(deadline=None, max_examples=80)
@given(
    name=NAMES,
    seed=SEEDS,
    trials=st.integers(1, 40),
    workers=st.integers(1, 60),
    failures=st.sampled_from([0, 0.05, 0.4, 1]),
    mode=st.sampled_from(["max", "min"]),
)
def test_every_sweep_comes_to_its_end(
    name: str, seed: int, trials: int, workers: int, failures: float, mode: str
) -> None:
    """Whatever is reported, in whatever order, and whoever fails."""
    player = Player(policy(name, trials, mode), random.Random(seed)).play(workers, failures)
    verdicts = player.policy.verdicts()
    assert sorted(verdicts) == list(range(trials)), "every trial begins, and none twice"
    assert "waits" not in verdicts.values()
    if name != "pbt":
        assert len(set(player.legs)) == len(player.legs), "nothing is trained twice"


@settings(deadline=None, max_examples=60)
@given(name=NAMES, seed=SEEDS, trials=st.integers(1, 30), workers=st.integers(1, 8))
def test_a_record_of_the_calls_rebuilds_a_policy(name: str, seed: int, trials: int, workers: int) -> None:
    first = Player(policy(name, trials), random.Random(seed)).play(workers, 0.1)
    again, second = policy(name, trials), policy(name, trials)
    for call, *arguments in first.calls:
        assert decisions(again) == decisions(second)
        getattr(again, call)(*arguments)
        getattr(second, call)(*arguments)
        if call == "begin":
            getattr(second, call)(*arguments)  # a leg that was cut off starts again
    assert decisions(again) == decisions(second) == decisions(first.policy)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("workers", [1, 500])
def test_many_trials_end_too(name: str, workers: int) -> None:
    played = policy(name, 500)
    running: list[Leg] = []
    rng = random.Random(workers)
    while True:
        while len(running) < workers and (leg := played.next()):
            played.begin(leg)
            running.append(leg)
        if not running:
            break
        leg = running.pop(rng.randrange(len(running)))
        if rng.random() < 0.05:
            played.fail(leg.trial)
        else:
            played.report(leg.trial, leg.until or EPOCHS, rng.random())
    assert Counter(played.verdicts().values()).keys() <= {"done", "stopped"}
    assert len(played.verdicts()) == 500


@settings(deadline=None, max_examples=60)
@given(name=NAMES, seed=SEEDS, trials=st.integers(1, 12), at=st.integers(0, 60))
def test_an_extended_sweep_keeps_what_was_final(name: str, seed: int, trials: int, at: int) -> None:
    player = Player(policy(name, trials), random.Random(seed))
    for _ in range(at):
        if not (len(player.running) < 3 and player.begin()) and player.running:
            player.end()
    before = player.policy.verdicts()
    if name == "pbt":
        with pytest.raises(UsageError, match=f"keeps its {trials} trials"):
            player.policy.extend(trials + 9)
        return
    player.policy.extend(trials + 9)
    player.play(3)
    after = player.policy.verdicts()
    assert sorted(after) == list(range(trials + 9))
    assert "waits" not in after.values()
    assert all(after[trial] == verdict for trial, verdict in before.items() if verdict != "waits")


@settings(deadline=None, max_examples=100)
@given(
    seed=SEEDS,
    trials=st.integers(1, 60),
    reduction=st.integers(2, 5),
    grace=st.integers(1, 4),
    most=st.integers(4, 90),
    workers=st.integers(1, 70),
)
def test_halving_has_exactly_as_many_at_each_rung(
    seed: int, trials: int, reduction: int, grace: int, most: int, workers: int
) -> None:
    options = {"max": f"{most} epochs", "grace": f"{grace} epochs", "reduction": reduction}
    halving = policy("successive-halving", trials, epochs=most, **options)
    player = Player(halving, random.Random(seed)).play(workers)
    rungs = [grace * reduction**k for k in range(9) if grace * reduction**k < most] + [most]
    planned = {epochs: max(1, trials // reduction**k) for k, epochs in enumerate(rungs)}
    assert {epochs: len(there) for epochs, there in player.reached.items()} == planned


def test_halving_takes_the_best_and_waits_for_all() -> None:
    # Two of 6 go on; ties go to the lower number, NaN is the worst.
    values = [math.nan, 0.5, 0.1, 0.7, 0.5, 0.5]
    halving = policy("successive-halving", 6)
    for trial in range(6):
        halving.begin(Leg(trial, 1))
    for trial in (5, 4, 3, 0, 2):
        halving.report(trial, 1, values[trial])
        assert halving.next() is None
    assert halving.verdicts() == {5: "stopped", 4: "waits", 3: "waits", 0: "stopped", 2: "stopped"}
    assert halving.report(1, 1, values[1]) == "waits"
    assert halving.verdicts()[4] == "stopped"
    assert halving.next() == Leg(3, 3)
    halving.begin(Leg(3, 3))
    assert halving.next() == Leg(1, 3)


def test_failed_trials_leave_their_places_to_others() -> None:
    halving = policy("successive-halving", 6)
    for trial in range(6):
        halving.begin(Leg(trial, 1))
    for trial in range(5):
        halving.fail(trial)
    assert halving.report(5, 1, 0.0) == "waits"
    assert halving.next() == Leg(5, 3), "two were to go on, one is left"


# Li et al. 2016, table 1: R = 81, η = 3; trials and epochs of each rung, s = 4, …, 0.
TABLE = [
    [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
    [(34, 3), (11, 9), (3, 27), (1, 81)],
    [(15, 9), (5, 27), (1, 81)],
    [(8, 27), (2, 81)],
    [(5, 81)],
]


def test_hyperband_makes_the_brackets_of_the_paper() -> None:
    options = {"max": "81 epochs", "grace": "1 epoch", "reduction": 3}
    trials = sum(bracket[0][0] for bracket in TABLE)
    hyperband = policy("hyperband", trials + 10, epochs=81, **options)
    player = Player(hyperband, random.Random(0)).play(7)
    first = 0
    for bracket in TABLE:
        its = range(first, first + bracket[0][0])
        found = [(sum(t in its for t in there), epochs) for epochs, there in sorted(player.reached.items())]
        assert [rung for rung in found if rung[0]] == bracket
        first = its.stop
    cut = Counter(epochs for epochs, there in player.reached.items() for t in there if t >= first)
    assert cut == {1: 10, 3: 3, 9: 1, 27: 1, 81: 1}, "then the first bracket again, of those that are left"


def test_later_brackets_use_idle_workers_only() -> None:
    hyperband = policy("hyperband", 49)
    for trial in range(27):
        assert hyperband.next() == Leg(trial, 1)
        hyperband.begin(Leg(trial, 1))
    assert hyperband.next() == Leg(27, 3), "the first bracket has nothing to train before it reports"
    hyperband.begin(Leg(27, 3))
    for trial in range(27):
        hyperband.report(trial, 1, float(trial))
    assert hyperband.next() == Leg(26, 3), "now it has"
