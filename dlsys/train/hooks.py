"""A user's own code at the moments that training has: `hooks:`.

A hook is an object with some of these methods, each called on every worker:

    start(run)                  before the first step, also of a run that goes on
    step(run)                   after every update
    evaluated(run, split, metrics)
    saved(run, best)            a checkpoint of this step is being written
    end(run, reason)            `finished`, `target`, `time`, `patience`, `paused` or `interrupted`

`state_dict()` and `load_state_dict(state)`, of what JSON can hold, make it go on where a checkpoint left it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlsys.errors import UsageError
from dlsys.own.imports import import_own
from dlsys.own.options import arguments
from dlsys.spec.names import wrong_name
from dlsys.spec.train.job import TrainJob
from dlsys.train import seeding
from dlsys.train.checkpoint import Position
from dlsys.train.strategies import Strategy
from dlsys.train.world import World

MOMENTS = ("start", "step", "evaluated", "saved", "end")
# Where each worker holds the whole model, and an update changes it in place.
_WHOLE = ("single", "ddp", "ring")


class Run:
    """A run, as its hooks see it.

    Attributes:
        job: the job file with all its defaults.
        rank, workers: which worker this is, and of how many.
        artifacts: a folder of the run's; files in it are among its artifacts.
    """

    def __init__(
        self,
        job: TrainJob,
        world: World,
        strategy: Strategy,
        position: Callable[[], Position],
        metrics: Callable[[], Mapping[str, float]],
        log: Callable[[int, dict[str, float]], None],
        artifacts: Path,
    ) -> None:
        self.job: Mapping[str, Any] = job.model_dump(mode="json")
        self.rank, self.workers, self.artifacts = world.rank, world.size, artifacts
        self._strategy, self._position, self._metrics, self._log = strategy, position, metrics, log
        # Which hook looks at it now, and whether that one may change the model.
        self.called = "", False

    @property
    def step(self) -> int:
        """Updates that are done."""
        return self._position().step

    @property
    def epoch(self) -> int:
        """The current epoch, from 0."""
        return self._position().epoch

    @property
    def metrics(self) -> dict[str, float]:
        """The last value of each metric; equal on all workers."""
        return dict(self._metrics())

    def log(self, values: Mapping[str, float]) -> None:
        """Logs figures at this step; those of rank 0 count.

        Raises:
            UsageError: MLflow does not take a name, or it is one that training logs.
        """
        for name in values:
            if wrong := wrong_name(name):
                raise UsageError(f"{self.called[0]}: the metric {name!r} {wrong}")
            if name in self._metrics() or name.split("/")[0] in ("train", "valid", "test", "perf", "system"):
                raise UsageError(f"{self.called[0]}: the metric {name!r} is training's own: log hook/{name}")
        if self.rank == 0:
            self._log(self.step, {name: float(value) for name, value in values.items()})

    def weights(self) -> dict[str, Tensor]:
        """A copy of the whole model's parameters and buffers on the CPU, by name; empty on all ranks but 0.

        To be called on every worker, at the same moment.

        Raises:
            UsageError: workers do not come to this step together.
        """
        if not self._strategy.meets(self.step):
            raise UsageError(
                f"{self.called[0]}: workers are at different steps here: ask when one is evaluated or saved"
            )
        state = self._strategy.state_out()
        return {name: weight.detach().cpu().clone() for name, weight in state.model.items() if self.rank == 0}

    @property
    def model(self) -> nn.Module:
        """The model that trains, for a hook that says `changes = True`.

        Raises:
            UsageError: this one does not.
        """
        place, changes = self.called
        if not changes:
            raise UsageError(
                f"{place}: looks on and changes nothing: use run.weights(), or say changes = True in "
                "the class"
            )
        return self._strategy.model


class Hooks:
    """A job's hooks.

    Args:
        made: each by its `module:Class`.
    """

    def __init__(self, made: Sequence[tuple[str, Any]] = ()) -> None:
        self._made = made

    @classmethod
    def of(cls, job: TrainJob, note: Callable[[str], None]) -> Hooks:
        """Makes them.

        Args:
            note: tells people which of them may change what is computed.

        Raises:
            WorkloadError: a hook cannot be imported.
            UsageError: its options do not fit, it has none of the moments, or may change nothing here.
        """
        made = []
        for index, (place, options) in enumerate(job.own_hooks):
            make = import_own(place, f"hooks.{index}")
            hook = make(**arguments(make, options, owner=place, field=f"hooks.{index}"))
            if not any(callable(getattr(hook, moment, None)) for moment in MOMENTS):
                raise UsageError(f"hooks.{index}: {place} has none of the methods {', '.join(MOMENTS)}")
            if _changes(hook):
                name = job.strategy.name if job.strategy else ""
                if name not in _WHOLE:
                    raise UsageError(
                        f"hooks.{index}: {place} changes training, which it may under {', '.join(_WHOLE)}, "
                        f"got {name}"
                    )
                note(f"the hook {place} may change what is computed")
            made.append((place, hook))
        return cls(made)

    def begin(self, run: Run, state: Mapping[str, Any]) -> None:
        """Gives the hooks what they see, and the state that a checkpoint has of them."""
        self._run = run
        for place, hook in self._made:
            if place in state and hasattr(hook, "load_state_dict"):
                hook.load_state_dict(state[place])

    def call(self, moment: str, *told: Any) -> None:
        """Calls what the hooks have for a moment. Random numbers that they draw are none of training's."""
        for place, hook in self._made:
            function = getattr(hook, moment, None)
            if function is None:
                continue
            self._run.called = place, _changes(hook)
            if _changes(hook):
                function(self._run, *told)
                continue
            random = seeding.random_state()
            with torch.no_grad():
                function(self._run, *told)
            seeding.set_random_state(random)

    def state_dict(self) -> dict[str, Any]:
        """By place.

        Raises:
            UsageError: JSON cannot hold it.
        """
        found = {place: hook.state_dict() for place, hook in self._made if hasattr(hook, "state_dict")}
        for place, state in found.items():
            try:
                json.dumps(state)
            except (TypeError, ValueError) as error:
                raise UsageError(f"{place}: state_dict() gives what JSON cannot hold: {error}") from error
        return found


def _changes(hook: Any) -> bool:
    return bool(getattr(hook, "changes", False))
