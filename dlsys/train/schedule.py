"""How the learning rate moves: torch's schedulers, driven apart from the model's optimizer.

Strategies shard, wrap and rebuild their optimizers, and a scheduler that is tied to one would have
to follow. So the curve is drawn on an optimizer of its own over one idle number, and `apply`
writes its values into whatever optimizer does the work.

A schedule's state is where on its curve it stands, never the rate itself: a run that goes on from
a checkpoint with another `optimizer.lr` gets the curve of the new rate.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch.optim.lr_scheduler import CyclicLR, LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from dlsys.errors import UsageError
from dlsys.spec.train import schedule as spec


class Schedule:
    """The learning rate and the momentum of every update.

    In what follows t counts the updates done, so that the first one has t = 0. Linear warm-up
    (Goyal et al. 2017) lies on top of every schedule and takes no time from it: while
    t < warmup, the schedule's rate is multiplied with (t + 1) / (warmup + 1). Curves drawn over
    the whole run (one-cycle, cosine-annealing) reach their end at the last update,
    t = total_steps − 1, and stay there if the run goes on.

    Args:
        options: the checked `schedule:` section.
        lr: the optimizer's own rate.
        steps_per_epoch: updates in an epoch.
        total_steps: updates of the whole run; None where nothing bounds them.
        mode: the best direction of the metric that performance-schedule watches.

    Raises:
        UsageError: the schedule needs `total_steps`, and there is none.
    """

    def __init__(
        self,
        options: spec.Schedule,
        *,
        lr: float,
        steps_per_epoch: int,
        total_steps: int | None,
        mode: Literal["min", "max"] = "min",
    ) -> None:
        if options.name in spec.NEEDS_TOTAL and total_steps is None:
            raise UsageError(
                f"schedule.name: {options.name} is drawn over the whole run: give stop.epochs or stop.steps"
            )
        self._options = options
        self._lr = lr
        self._steps = 0
        self._cuts = 0
        self._end = total_steps - 1 if total_steps and options.name in spec.NEEDS_TOTAL else None
        self._optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
        self._scheduler = _scheduler(options, self._optimizer, lr, steps_per_epoch, self._end, mode)
        # Idle, but torch warns when a scheduler moves before its optimizer has.
        self._optimizer.step()

    @property
    def hyper(self) -> dict[str, float | None]:
        """`lr` and `momentum` of the next update; None leaves the optimizer's momentum alone."""
        group = self._optimizer.param_groups[0]
        warmth = min(1.0, (self._steps + 1) / (self._options.warmup + 1))
        cycles = isinstance(self._options, spec.OneCycle)
        return {"lr": group["lr"] * warmth, "momentum": group["momentum"] if cycles else None}

    def step(self) -> None:
        """One update has been done."""
        self._steps += 1
        self._draw()

    def observe(self, metrics: Mapping[str, float]) -> None:
        """An evaluation has been done; only performance-schedule minds."""
        if not isinstance(self._scheduler, ReduceLROnPlateau):
            return
        assert isinstance(self._options, spec.Performance)
        group = self._optimizer.param_groups[0]
        before = group["lr"]
        self._scheduler.step(metrics[self._options.metric])
        self._cuts += group["lr"] < before

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers that survive JSON exactly."""
        if not isinstance(self._scheduler, ReduceLROnPlateau):
            return {"steps": self._steps}
        best = self._scheduler.best
        assert isinstance(self._options, spec.Performance)
        return {
            "steps": self._steps,
            "cuts": self._cuts,
            "metric": self._options.metric,
            "best": None if best == self._scheduler.mode_worse else best,
            "bad_evaluations": self._scheduler.num_bad_epochs,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> str:
        """Goes on from a state that the same kind of schedule gave out.

        Returns:
            A sentence for people where it waits for another metric than before, or nothing.
        """
        self._steps = state["steps"]
        told = ""
        if isinstance(self._scheduler, ReduceLROnPlateau):
            assert isinstance(self._options, spec.Performance)
            self._cuts = state["cuts"]
            best, bad = state["best"], state["bad_evaluations"]
            metric = self._options.metric
            if (before := state.get("metric", metric)) != metric:
                best, bad = None, 0
                told = f"schedule.metric: was {before}; of {metric} the next evaluation is the best so far"
            self._scheduler.best = self._scheduler.mode_worse if best is None else best
            self._scheduler.num_bad_epochs = bad
            lr = self._lr
            for _ in range(self._cuts):
                lr = max(lr * self._options.gamma, self._options.min_lr)
            self._optimizer.param_groups[0]["lr"] = lr
        self._draw()
        return told

    def _draw(self) -> None:
        """Moves the scheduler to where `_steps` stands; those used here know their curve at any t."""
        if not isinstance(self._scheduler, ReduceLROnPlateau):
            t = self._steps if self._end is None else min(self._steps, self._end)
            self._scheduler.last_epoch = t - 1
            self._scheduler.step()


def apply(optimizer: torch.optim.Optimizer, hyper: Mapping[str, float | None]) -> None:
    """Writes a schedule's `hyper` into every parameter group, its rate times the group's `lr_factor`.

    Momentum goes to `momentum`, or to β₁ where there are betas; an optimizer without either
    (adagrad, adadelta) takes the rate alone.
    """
    rate, momentum = hyper["lr"], hyper["momentum"]
    for group in optimizer.param_groups:
        group["lr"] = rate if rate is None else rate * group.get("lr_factor", 1.0)
        if momentum is None:
            continue
        if "betas" in group:
            group["betas"] = (momentum, *group["betas"][1:])
        elif "momentum" in group:
            group["momentum"] = momentum


def _scheduler(
    options: spec.Schedule,
    optimizer: torch.optim.Optimizer,
    lr: float,
    steps_per_epoch: int,
    end: int | None,
    mode: Literal["min", "max"],
) -> LRScheduler:
    match options:
        case spec.Performance():
            # Any improvement counts: torch's relative threshold fails for negative metrics.
            return ReduceLROnPlateau(
                optimizer,
                mode,
                factor=options.gamma,
                patience=options.patience,
                threshold=0.0,
                min_lr=options.min_lr,
                eps=0.0,
            )
        case spec.OneCycle():
            assert end is not None
            # A rise of exactly one step has its peak at t = 0, where torch would divide 0 by 0.
            lone = options.pct_start * (end + 1) == 1.0
            return OneCycleLR(
                optimizer,
                options.max_lr,
                total_steps=end + 1,
                pct_start=options.pct_start * (1 - 1e-9) if lone else options.pct_start,
                base_momentum=options.base_momentum,
                max_momentum=options.max_momentum,
                div_factor=options.div_factor,
                final_div_factor=options.final_div_factor,
            )
        case spec.Cyclical():
            return CyclicLR(
                optimizer,
                base_lr=lr,
                max_lr=options.max_lr,
                step_size_up=options.step_size,
                mode=options.mode,
                gamma=options.gamma,
                cycle_momentum=False,
            )
    return LambdaLR(optimizer, _factor(options, lr, steps_per_epoch, end))


def _factor(
    options: spec.Schedule, lr: float, steps_per_epoch: int, end: int | None
) -> Callable[[int], float]:
    """The schedules that are a function of t alone: what the optimizer's own rate is multiplied with."""
    match options:
        case spec.Power():
            return lambda t: float((1 + t / options.s) ** -options.c)
        case spec.Exponential():
            return lambda t: float(0.1 ** (t / options.s))
        case spec.ExponentialDecay():
            return lambda t: float(options.gamma ** (t // steps_per_epoch))
        case spec.StepDecay():
            return lambda t: float(options.gamma ** (t // (steps_per_epoch * options.epochs)))
        case spec.Piecewise():
            return lambda t: options.factors[bisect_right(options.boundaries, t)]
        case spec.Cosine():
            floor, last = options.min_lr / lr, max(end or 0, 1)
            return lambda t: floor + (1 - floor) * (1 + math.cos(math.pi * t / last)) / 2
        case spec.Annealing():
            return lambda t: 1 / math.sqrt(1 + t / options.s)
        case _:
            return lambda _: 1.0
