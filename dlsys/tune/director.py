"""A sweep's driver without its engine: what to train next, and what was learnt.

The policy deals out legs, the searcher chooses settings, and the ledger remembers both. After the
process died, the ledger's events are told to a new policy and a new searcher, and what was cut off
is given out again; nothing that was reported is trained twice.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from dlsys.plan.perturb import perturb
from dlsys.plan.policies import policy_of
from dlsys.plan.policy import Leg
from dlsys.spec.rl.job import Job
from dlsys.spec.sweep import space
from dlsys.spec.sweep.sweep import PBT, Grid, Sweep
from dlsys.tune.ledger import Ledger
from dlsys.tune.searcher import Told
from dlsys.tune.searchers import searcher_of

Status = Literal["running", "waits", "done", "stopped", "failed"]


class Report(NamedTuple):
    """The end of a leg.

    Attributes:
        epoch: those of a donor counted in.
        trained: epochs of this leg alone.
        seconds: that the leg took.
        time: when it came in, in seconds since 1970.
        settings: the trial's at that time.
    """

    trial: int
    epoch: int
    value: float
    trained: int
    seconds: float
    time: float
    settings: dict[str, Any]


@dataclass
class Trial:
    """What is known of one trial.

    Attributes:
        status: `done`: it was trained to its end; `stopped`: it was not worth that.
        reports: (epoch, value of the metric) at each leg's end.
        trained: epochs of its own training; `epoch` counts a donor's in.
        seconds: spent in its legs.
        legs: how often training was begun.
        crashes: how many of them died.
        metrics: the last values.
        start: the epoch at which its last leg began.
    """

    number: int
    settings: dict[str, Any]
    status: Status = "running"
    reports: list[tuple[int, float]] = field(default_factory=list)
    trained: int = 0
    seconds: float = 0.0
    legs: int = 0
    crashes: int = 0
    cause: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    start: int = 0

    @property
    def value(self) -> float | None:
        """The metric as it was last reported."""
        return self.reports[-1][1] if self.reports else None

    @property
    def epoch(self) -> int:
        return self.reports[-1][0] if self.reports else 0


@dataclass(frozen=True)
class Order:
    """What a worker is to train.

    Attributes:
        trial: which one.
        number: of the order among this trial's, from 1.
        settings: the trial's.
        until: the epoch at which it reports; None at the job's end.
        donor: the trial whose state it takes over first.
        tested: it has come to its end, and now meets the test set.
    """

    trial: int
    number: int
    settings: dict[str, Any]
    until: int | None
    donor: int | None = None
    tested: bool = False


class Director:
    """One sweep.

    Args:
        sweep: all defaults filled in.
        job: what trials train, for its length and how often it is measured.
        ledger: what happened so far is taken from there.
        ended: called when a trial has come to its end for good.

    Attributes:
        history: all reports, in the order in which they came.
        testers: the trials that met the test set, in that order: one, and one more for each extension.
    """

    def __init__(
        self,
        sweep: Sweep,
        job: Job,
        ledger: Ledger,
        ended: Callable[[Trial], None] = lambda trial: None,
    ) -> None:
        self._tree = space.parse(sweep.space)[0]
        self.sweep = sweep.model_copy(update={"trials": _most(sweep, self._tree)})
        assert sweep.mode is not None, "a resolved sweep names it"
        self._ledger, self._ended = ledger, ended
        self._policy = policy_of(self.sweep, job.stop.epochs, job.evaluate.count)
        self._searcher = searcher_of(self.sweep)
        self._redo: list[Leg] = []
        self._test: dict[str, float] | None = None
        self._testing = False
        self.trials: dict[int, Trial] = {}
        self.running: dict[int, Leg] = {}
        self.history: list[Report] = []
        self.testers: list[int] = []
        for event in ledger.past():
            self._apply(event)
        self._redo = sorted(self.running.values(), key=lambda leg: leg.trial)
        self.running = {}

    # -- what is next

    def next(self) -> Order | None:
        """The next piece of work, which is written down as begun; None when there is none now."""
        if self._redo:
            leg = self._redo.pop(0)
            self.running[leg.trial] = leg
            self._write("again", trial=leg.trial)
            return self._order(leg)
        found = self._policy.next()
        if found is None:
            return self._final()
        if found.trial not in self.trials:
            settings = self._searcher.propose(found.trial)
            assert settings is not None, "the policy was told how many there are"
            self._write("trial", trial=found.trial, settings=settings)
        changed: dict[str, Any] = {}
        if found.donor is not None:
            changed = {"settings": self._mutated(found)}
        self._write("leg", trial=found.trial, until=found.until, donor=found.donor, **changed)
        return self._order(found)

    def _order(self, leg: Leg) -> Order:
        trial = self.trials[leg.trial]
        return Order(leg.trial, trial.legs, trial.settings, leg.until, leg.donor)

    def _mutated(self, leg: Leg) -> dict[str, Any]:
        assert leg.donor is not None
        scheduler, donor = self.sweep.scheduler, self.trials[leg.donor]
        assert isinstance(scheduler, PBT)
        draw = random.Random(f"{self.sweep.seed}/{leg.trial}/{len(self.trials[leg.trial].reports)}")
        return perturb(self._tree, donor.settings, scheduler.mutate, scheduler.resample, draw)

    def _final(self) -> Order | None:
        """When all is trained, the best trial meets the test set, once."""
        best = self.best
        if self.running or self._testing or self._test is not None or best is None or best.status != "done":
            return None
        self._testing = True
        self._write("again", trial=best.number)
        return Order(best.number, best.legs, best.settings, None, tested=True)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train or to wait for."""
        waits = bool(self.running or self._redo or self._testing) or self._policy.next() is not None
        best = self.best
        return not waits and (self._test is not None or best is None or best.status != "done")

    # -- what was learnt

    def reported(
        self, trial: int, epoch: int, value: float, seconds: float, metrics: Mapping[str, float]
    ) -> None:
        """A trial has come to the end of its leg."""
        self._write(
            "report", trial=trial, epoch=epoch, value=value, seconds=round(seconds, 4), metrics=dict(metrics)
        )

    def tested(self, trial: int, metrics: Mapping[str, float]) -> None:
        """The best trial has met the test set."""
        self._testing = False
        self._write("test", trial=trial, metrics=dict(metrics))

    def crashed(self, trial: int, cause: str, *, retry: bool) -> None:
        """A trial's leg ended without a report.

        Args:
            retry: whether another try could go better.
        """
        if self._testing and trial not in self.running:
            self._testing = False
            self.tested(trial, {})
            return
        final = not retry or self.trials[trial].crashes >= self.sweep.retries
        leg = self.running[trial]
        self._write("crash", trial=trial, cause=cause, final=final)
        if not final:
            self._redo.append(leg)

    def given_back(self, trial: int) -> None:
        """A leg was interrupted: it is taken up again when the sweep is."""
        self._testing = False
        if leg := self.running.pop(trial, None):
            self._redo.append(leg)

    def warm_start(self, earlier: Iterable[Told]) -> None:
        """Tells the searcher of another sweep's trials, before the first of this one."""
        for told in earlier:
            self._write("warm", trial=told.trial, settings=told.settings, value=told.value, epoch=told.epochs)

    def extend(self, trials: int) -> None:
        """There may be so many trials from now on.

        Raises:
            UsageError: the policy cannot grow.
        """
        self._apply({"event": "extend", "trials": trials})
        self._ledger.write("extend", trials=trials)

    def _write(self, event: str, **values: Any) -> None:
        self._apply(self._ledger.write(event, **values))

    def _apply(self, event: Mapping[str, Any]) -> None:
        number = int(event.get("trial", -1))
        trial = self.trials.get(number)
        match event["event"]:
            case "warm":
                self._searcher.warm([Told(number, event["settings"], event["value"], event["epoch"])])
            case "trial":
                self.trials[number] = Trial(number, event["settings"], "waits")
                self._searcher.running(number, event["settings"])
            case "leg" if trial is not None:
                leg = Leg(number, event["until"], event["donor"])
                trial.settings = event.get("settings", trial.settings)
                trial.status, trial.legs = "running", trial.legs + 1
                trial.start = trial.epoch if leg.donor is None else self.trials[leg.donor].epoch
                self.running[number] = leg
                self._policy.begin(leg)
            case "again" if trial is not None:
                trial.legs += 1
            case "report" if trial is not None:
                self.running.pop(number, None)
                value = math.nan if event["value"] is None else float(event["value"])
                trial.reports.append((int(event["epoch"]), value))
                trained, seconds = max(0, trial.epoch - trial.start), float(event["seconds"])
                trial.trained += trained
                trial.seconds += seconds
                trial.metrics = dict(event["metrics"])
                self.history.append(
                    Report(number, trial.epoch, value, trained, seconds, event["time"], trial.settings)
                )
                self._policy.report(number, trial.epoch, value)
                self._searcher.tell(Told(number, trial.settings, value, trial.epoch))
                self._settle()
            case "crash" if trial is not None:
                trial.crashes, trial.cause = trial.crashes + 1, str(event["cause"])
                if event["final"]:
                    self.running.pop(number, None)
                    trial.status = "failed"
                    self._policy.fail(number)
                    self._searcher.tell(Told(number, trial.settings, None, None))
                    self._ended(trial)
                    self._settle()
            case "test":
                self._test = dict(event["metrics"])
                self.testers.append(number)
            case "extend":
                self.sweep = self.sweep.model_copy(update={"trials": int(event["trials"])})
                self._policy.extend(int(event["trials"]))
                self._test = None

    def _settle(self) -> None:
        """Takes over the policy's word on trials that do not run."""
        for number, verdict in self._policy.verdicts().items():
            trial = self.trials[number]
            if trial.status in ("running", "waits") and number not in self.running:
                trial.status = verdict
                if verdict != "waits":
                    self._ended(trial)

    # -- results

    @property
    def best(self) -> Trial | None:
        """The best trial of those that were trained to their end, or of all where there is none.

        Values of unequal training do not compare; and who runs the best trial's job again trains it to
        its end.
        """
        done = [trial for trial in self.trials.values() if trial.status == "done"]
        return self._first(done) or self._first(list(self.trials.values()))

    def _first(self, trials: list[Trial]) -> Trial | None:
        found = [trial for trial in trials if trial.value is not None and not math.isnan(trial.value)]
        sign = 1 if self.sweep.mode == "min" else -1
        return min(found, key=lambda trial: (sign * (trial.value or 0.0), trial.number), default=None)

    def ranked(self) -> list[Trial]:
        """All trials: those that were trained furthest first, and of these the best."""
        sign = 1 if self.sweep.mode == "min" else -1

        def key(trial: Trial) -> tuple[int, float, int]:
            value = math.inf if trial.value is None or math.isnan(trial.value) else sign * trial.value
            return (-trial.epoch, value, trial.number)

        return sorted(self.trials.values(), key=key)

    @property
    def epochs(self) -> int:
        """Trained by all trials."""
        return sum(trial.trained for trial in self.trials.values())

    @property
    def test(self) -> dict[str, float] | None:
        """What the best trial showed on the test set; None before."""
        return self._test


def _most(sweep: Sweep, tree: space.Space) -> int:
    if isinstance(sweep.searcher, Grid):
        size = space.grid_size(tree, sweep.searcher.per_range)
        return min(sweep.trials, size + len(sweep.points))
    return sweep.trials
