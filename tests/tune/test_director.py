"""What a sweep trains, and that nothing of it is lost or done twice, whatever dies. No training here."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from harness import QUICK, job

from dlsys.errors import UsageError
from dlsys.spec.sweep.sweep import Sweep
from dlsys.tune.director import Director, Order, Trial
from dlsys.tune.ledger import Ledger
from dlsys.tune.searcher import Told

EPOCHS = 9
TRAINED = job(QUICK, f"stop={{epochs: {EPOCHS}}}")


def sweep_of(**changes: Any) -> Sweep:
    told = {
        "kind": "sweep",
        "name": "test",
        "job": "test.yaml",
        "metric": "valid/accuracy",
        "mode": "max",
        "space": {"optimizer.lr": {"uniform": [0.0, 1.0]}},
        "scheduler": {"name": "asha", "max": f"{EPOCHS} epochs", "reduction": 3},
        "trials": 20,
        **changes,
    }
    return Sweep.model_validate(told)


class World:
    """Trains as a formula does, and counts."""

    def __init__(self, path: Path, sweep: Sweep) -> None:
        self.path, self.sweep = path, sweep
        self.trained: Counter[tuple[int, int]] = Counter()
        self.ended: Counter[int] = Counter()
        self.tested: list[int] = []
        self.epochs: dict[int, int] = {}

    def direct(self) -> Director:
        self.ledger = Ledger(self.path)
        return Director(self.sweep, TRAINED, self.ledger, self._end)

    def _end(self, trial: Trial) -> None:
        self.ended[trial.number] += 1

    def train(self, director: Director, order: Order) -> None:
        if order.tested:
            self.tested.append(order.trial)
            director.tested(order.trial, {"test/accuracy": 0.5})
            return
        done = self.epochs.get(order.trial if order.donor is None else order.donor, 0)
        for epoch in range(done + 1, (order.until or EPOCHS) + 1):
            self.trained[order.trial, epoch] += 1
        self.epochs[order.trial] = order.until or EPOCHS
        value = order.settings["optimizer.lr"] * (1 - 0.5 ** self.epochs[order.trial])
        director.reported(order.trial, self.epochs[order.trial], value, 1.0, {"valid/accuracy": value})


def run(world: World, director: Director, workers: int = 2) -> Director:
    draw = random.Random(0)
    held: list[Order] = []
    while not director.finished:
        while len(held) < workers and (order := director.next()):
            held.append(order)
        world.train(director, held.pop(draw.randrange(len(held))))
    assert not held
    return director


SCHEDULERS: list[dict[str, Any]] = [
    {"name": "fifo"},
    {"name": "asha", "max": "9 epochs"},
    {"name": "successive-halving", "max": "9 epochs"},
    {"name": "hyperband", "max": "9 epochs"},
    {"name": "median"},
    {"name": "pbt", "mutate": ["optimizer.lr"]},
]


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda scheduler: str(scheduler["name"]))
def test_every_trial_comes_to_an_end(scheduler: dict[str, Any], tmp_path: Path) -> None:
    world = World(tmp_path / "ledger", sweep_of(scheduler=scheduler))
    director = run(world, world.direct())
    assert sorted(director.trials) == list(range(20))
    assert {trial.status for trial in director.trials.values()} <= {"done", "stopped"}
    assert set(world.ended.values()) == {1}
    best = director.best
    assert best is not None
    assert world.tested == [best.number], "the test set is touched once, by the best"
    assert best.status == "done"
    if scheduler["name"] != "pbt":  # a donor goes on while its clone waits to begin
        trained = sum(trial.trained for trial in director.trials.values())
        assert trained == sum(world.trained.values())


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda scheduler: str(scheduler["name"]))
def test_a_killed_driver_is_rebuilt(scheduler: dict[str, Any], tmp_path: Path) -> None:
    """1,000 trials, a driver that dies about every hundred events: none lost, none done twice."""
    whole = World(tmp_path / "whole", sweep_of(scheduler=scheduler, trials=1000))
    run(whole, whole.direct(), workers=1)
    world = World(tmp_path / "ledger", sweep_of(scheduler=scheduler, trials=1000))
    draw = random.Random(1)
    deaths = 0
    director = world.direct()
    while not director.finished:
        if deaths < 20 and draw.random() < 0.01:
            order = director.next()  # begun, and lost with the driver
            world.ledger.close()
            director, deaths = world.direct(), deaths + 1
            if order is not None:
                assert director.trials[order.trial].number == order.trial
            continue
        order = director.next()
        assert order is not None
        world.train(director, order)
    assert deaths > 5
    if scheduler["name"] != "pbt":  # a clone may train an epoch of its number once more
        assert set(world.trained.values()) == {1}
    assert world.trained == whole.trained, "with one worker, deaths change nothing at all"
    assert sorted(director.trials) == list(range(1000))


def test_the_rebuilt_one_knows_all(tmp_path: Path) -> None:
    world = World(tmp_path / "ledger", sweep_of())
    before = run(world, world.direct())
    after = world.direct()
    assert after.finished
    assert after.next() is None
    assert after.trials == before.trials
    assert after.test == {"test/accuracy": 0.5}


def test_a_crash_is_tried_again_and_then_told(tmp_path: Path) -> None:
    world = World(tmp_path / "ledger", sweep_of(trials=3, retries=1, scheduler={"name": "fifo"}))
    director = world.direct()
    first = director.next()
    assert first is not None
    director.crashed(first.trial, "killed", retry=True)
    again = director.next()
    assert again is not None
    assert (again.trial, again.settings, again.number) == (first.trial, first.settings, 2)
    director.crashed(again.trial, "killed again", retry=True)
    assert director.trials[first.trial].status == "failed"
    assert director.trials[first.trial].cause == "killed again"
    run(world, director)
    assert Counter(trial.status for trial in director.trials.values()) == {"done": 2, "failed": 1}


def test_what_cannot_go_better_is_not_tried_again(tmp_path: Path) -> None:
    world = World(tmp_path / "ledger", sweep_of(trials=9))
    director = world.direct()
    order = director.next()
    assert order is not None
    director.crashed(order.trial, "the loss is NaN", retry=False)
    assert director.trials[order.trial].status == "failed"
    run(world, director)
    assert len(director.trials) == 9


def test_what_was_interrupted_is_given_out_again(tmp_path: Path) -> None:
    world = World(tmp_path / "ledger", sweep_of(trials=3))
    director = world.direct()
    order = director.next()
    assert order is not None
    director.given_back(order.trial)
    world.ledger.close()
    director = world.direct()
    again = director.next()
    assert again is not None
    assert (again.trial, again.until, again.settings) == (order.trial, order.until, order.settings)
    assert director.trials[order.trial].crashes == 0


def test_more_trials_of_an_ended_sweep(tmp_path: Path) -> None:
    world = World(tmp_path / "ledger", sweep_of(trials=9))
    run(world, world.direct())
    before = dict(world.trained)
    world.ledger.close()
    director = world.direct()
    director.extend(15)
    run(world, director)
    assert sorted(director.trials) == list(range(15))
    assert all(world.trained[key] == count for key, count in before.items())
    assert len(world.tested) == 2, "a longer sweep has a test of its own"
    world.ledger.close()
    assert world.direct().finished


def test_a_population_does_not_grow(tmp_path: Path) -> None:
    world = World(tmp_path / "ledger", sweep_of(scheduler={"name": "pbt", "mutate": ["optimizer.lr"]}))
    with pytest.raises(UsageError):
        world.direct().extend(40)


def test_a_clone_begins_where_its_donor_is(tmp_path: Path) -> None:
    world = World(
        tmp_path / "ledger", sweep_of(scheduler={"name": "pbt", "mutate": ["optimizer.lr"]}, trials=8)
    )
    run(world, world.direct())
    events = [json.loads(line) for line in (tmp_path / "ledger").read_text().splitlines()]
    clones = [event for event in events if event.get("donor") is not None]
    assert clones
    for clone in clones:
        before = events[: events.index(clone)]
        at = [e["epoch"] for e in before if e["event"] == "report" and e["trial"] == clone["donor"]]
        assert clone["until"] == at[-1] + 1


def test_a_torn_last_line(tmp_path: Path) -> None:
    world = World(tmp_path / "ledger", sweep_of(trials=9))
    run(world, world.direct())
    world.ledger.close()
    lines = (tmp_path / "ledger").read_bytes().splitlines(keepends=True)
    (tmp_path / "ledger").write_bytes(b"".join(lines[:9]) + lines[9][:20])
    again = World(tmp_path / "ledger", world.sweep)
    director = run(again, again.direct())
    assert sorted(director.trials) == list(range(9))
    for line in (tmp_path / "ledger").read_text().splitlines():
        json.loads(line)


def test_a_reader_leaves_the_ledger_alone(tmp_path: Path) -> None:
    (tmp_path / "ledger").write_bytes(b'{"event":"extend","tri')
    reader = Ledger(tmp_path / "ledger", read_only=True)
    assert list(reader.past()) == []
    reader.close()
    assert (tmp_path / "ledger").read_bytes() == b'{"event":"extend","tri'


def test_a_searcher_knows_an_earlier_sweep(tmp_path: Path) -> None:
    """From its first trial, and again when its driver was killed."""
    told = [Told(i, {"optimizer.lr": i / 20}, 1 - abs(i / 20 - 0.7), EPOCHS) for i in range(20)]
    sweep = sweep_of(searcher={"name": "gp", "startup": 5}, scheduler={"name": "fifo"}, trials=8)
    world = World(tmp_path / "ledger", sweep)
    director = world.direct()
    director.warm_start(told)
    first = director.next()
    assert first is not None
    assert abs(first.settings["optimizer.lr"] - 0.7) < 0.1
    world.ledger.close()
    again = world.direct()
    assert again.next() is not None
    second = again.next()
    assert second is not None
    assert abs(second.settings["optimizer.lr"] - 0.7) < 0.2
    assert len(again.trials) == 2, "the earlier trials are none of this sweep's"
