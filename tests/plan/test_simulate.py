"""Simulated sweeps: the clock, the curves, and what schedulers are known to do."""

from __future__ import annotations

import json
import math
import runpy
from pathlib import Path
from typing import Any

import pytest
from dealing import SCHEDULERS, policy

from dlsys.errors import UsageError
from dlsys.plan.curves import Bank, Recorded, Shuffled, recorded
from dlsys.plan.halving import SuccessiveHalvingPolicy, rungs_between
from dlsys.plan.simulate import simulate
from dlsys.spec.sweep import space

SPACE, _ = space.parse({f"x{i}": {"uniform": [0, 1]} for i in range(6)})
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "asha_simulated.py"


class Plain:
    """Trial t ends at t, and an epoch of it takes t + 1 seconds."""

    def value(self, trial: int, epoch: int) -> float:
        return trial * epoch / 27

    def seconds(self, trial: int) -> float:
        return trial + 1.0


def test_the_clock_is_right() -> None:
    line = simulate(policy("fifo", 3), Plain(), 2, 27, overhead=10)
    # Trials 0 and 1 take 37 and 64 seconds; trial 2 starts when 0 ends, and takes 91.
    assert [(leg.trial, leg.start, leg.end) for leg in line.legs] == [(0, 0, 37), (1, 0, 64), (2, 37, 128)]
    assert (line.seconds, line.busy, line.epochs, dict(line.rungs)) == (128, 192, 81, {27: 3})
    assert line.idle == 1 - 192 / 256
    assert [(best.seconds, best.epochs, best.trial) for best in line.best] == [
        (37, 27, 0),
        (64, 54, 1),
        (128, 81, 2),
    ]
    # Trial 1 is at 20/27 after 20 of its epochs, of 2 seconds each, from 10 on.
    assert line.reaches(20 / 27, Plain()) == 10 + 20 * 2
    assert line.reaches(2.1, Plain()) is None


def test_rungs_and_epochs_of_halving_are_as_planned() -> None:
    line = simulate(policy("successive-halving", 27), Plain(), 5, 27)
    assert dict(line.rungs) == {1: 27, 3: 9, 9: 3, 27: 1}
    assert line.epochs == 27 + 9 * 2 + 3 * 6 + 18


def test_stragglers_and_lost_epochs_cost_time_only() -> None:
    plain = simulate(policy("fifo", 20), Plain(), 20, 27)
    slow = simulate(policy("fifo", 20), Plain(), 20, 27, straggling=1, dropping=0.1)
    assert slow.epochs == plain.epochs
    # E|z| = 0.80; a tenth of epochs lost is a ninth more.
    assert 1.4 < slow.busy / plain.busy < 2.6
    again = simulate(policy("fifo", 20), Plain(), 20, 27, straggling=1, dropping=0.1)
    assert again.legs == slow.legs, "the same seed, the same troubles"


def test_who_takes_over_follows_the_donors_curve() -> None:
    line = simulate(policy("pbt", 8), Plain(), 8, 27)
    taken = [leg for leg in line.legs if leg.curve != leg.trial]
    assert taken
    assert all(leg.value == Plain().value(leg.curve, leg.last) for leg in line.legs)
    assert {leg.last for leg in line.legs if leg.trial == 0} >= {3, 27}


@pytest.mark.parametrize(
    ("name", "trials"), [(name, 10_000 if name == "asha" else 1000) for name in SCHEDULERS]
)
def test_large_sweeps_can_be_simulated(name: str, trials: int) -> None:
    line = simulate(policy(name, trials), Bank(SPACE, "max"), 500, 27)
    assert len({leg.trial for leg in line.legs}) == trials


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("mode", ["max", "min"])
def test_halvings_winner_is_one_of_the_best(seed: int, mode: Any) -> None:
    bank = Bank(SPACE, mode, seed)
    line = simulate(policy("successive-halving", 81, mode), bank, 9, 27)
    ends = sorted((bank.value(trial, 27) for trial in range(81)), reverse=mode == "max")
    winners = [leg.value for leg in line.legs if leg.last == 27]
    best = max(winners) if mode == "max" else min(winners)
    assert best in ends[:8], "of the true best tenth"
    assert line.epochs < 0.2 * 81 * 27


@pytest.mark.parametrize("seed", range(3))
def test_asynchronous_sweeps_do_not_idle_and_batches_do(seed: int) -> None:
    """Two workers, trials of uneven speed, legs that straggle."""
    bank = Bank(SPACE, "max", seed)
    for name in ("fifo", "asha"):
        assert simulate(policy(name, 72), bank, 2, 27, straggling=1, seed=seed).idle < 0.1
    # One halving of 9 trials after another.
    rungs = rungs_between(1, 27, 3)
    batches = []
    for batch in range(8):
        halving, others = SuccessiveHalvingPolicy(9, "max", rungs, 3), Shuffled(bank, 72, batch)
        batches.append(simulate(halving, others, 2, 27, straggling=1, seed=batch))
    assert 1 - sum(b.busy for b in batches) / sum(2 * b.seconds for b in batches) > 0.25


@pytest.mark.quality
@pytest.mark.slow
def test_asha_is_faster_than_halving_and_that_than_random_search() -> None:
    """The shape of Li et al. 2018; docs/sweeps.md has the figures of more seeds."""
    times_to_target = runpy.run_path(str(BENCHMARK))["times_to_target"]
    for workers in (25, 500):
        times = times_to_target(workers, seeds=5)
        one, several = times["halving, one bracket"], times["halving, brackets of 256"]
        assert times["asha"] < several * 0.95
        assert times["asha"] < one * 0.75
        assert max(one, several) < times["random"] * 0.75


def test_curves_follow_settings() -> None:
    tree, _ = space.parse({"x": {"uniform": [0, 1]}, "kind": {"choice": ["a", "b"]}})
    bank, same, other = Bank(tree, "min", 1), Bank(tree, "min", 1), Bank(tree, "min", 2)
    assert bank.value(3, 9) == same.value(3, 9) != other.value(3, 9)
    assert Bank(tree, "max", 1).value(3, 9) == 1 - bank.value(3, 9)
    points = [{"x": 0.25, "kind": "a"}, {"x": 0.25, "kind": "a"}, {"x": 0.26, "kind": "a"}, {"x": 0.9}]
    near = Bank(tree, "min", 1, points)
    late = [near.value(trial, 10**6) for trial in range(3)]
    assert late[0] == pytest.approx(late[1], abs=0.05), "the same settings, but for noise"
    assert late[0] == pytest.approx(late[2], abs=0.05)
    assert near.seconds(0) == near.seconds(1) != near.seconds(3)
    for trial in range(20):
        assert bank.value(trial, 0) == pytest.approx(0.9, abs=0.05)
        assert bank.value(trial, 27) < 0.9
        assert 0.5 <= bank.seconds(trial) <= 2


def test_recorded_curves_are_interpolated_and_held() -> None:
    curves = Recorded([[(1, 0.5, 2.0), (3, 0.7, 4.0), (9, 0.1, 12.0)], [(1, 0.2, 1.0)]])
    assert [curves.value(0, e) for e in (1, 2, 3, 6, 9, 27)] == pytest.approx([0.5, 0.6, 0.7, 0.4, 0.1, 0.1])
    assert (curves.value(1, 27), curves.value(3, 9)) == (0.2, 0.2)
    assert (curves.seconds(0), curves.seconds(1)) == (2.0, 1.0)


def ledger(path: Path, *events: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return path


def test_a_ledger_is_read(tmp_path: Path) -> None:
    path = ledger(
        tmp_path / "ledger.jsonl",
        {"event": "trial", "trial": 0, "settings": {"optimizer.lr": 0.1}},
        {"event": "report", "trial": 1, "epoch": 1, "value": 0.25, "seconds": 3, "more": "ignored"},
        {"event": "report", "trial": 0, "epoch": 1, "value": None, "seconds": 1},
        {"event": "begin", "trial": 1},
        {"event": "report", "trial": 1, "epoch": 3, "value": 0.75, "seconds": 3},
    )
    with path.open("a") as file:
        file.write('{"event": "report", "tri')
    curves = recorded(path)
    assert math.isnan(curves.value(0, 1))
    assert curves.value(1, 2) == 0.5
    assert curves.seconds(1) == 2.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not json\n", "ledger.jsonl:1: no event"),
        ('{"event": "x"}\n{"event": "report", "trial": 0}\n', "ledger.jsonl:2: no event.*'value'"),
        ("[1]\n", "ledger.jsonl:1: no event"),
        ('{"event": "trial"}\n', "holds no report"),
    ],
)
def test_what_is_no_ledger_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        recorded(path)
    with pytest.raises(UsageError, match="cannot be read"):
        recorded(tmp_path)


def test_a_diverging_trial_is_never_the_best() -> None:
    nan = math.nan
    curves = Recorded([[(27, nan, 1.0)], [(27, 0.5, 1.0)], [(27, nan, 1.0)]])
    line = simulate(policy("fifo", 3), curves, 1, 27)
    assert [best.value for best in line.best] == [0.5]
    assert line.reaches(0.5, curves) is not None
