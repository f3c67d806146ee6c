"""What chooses the settings of a sweep's next trial.

A proposal is a pure function of the sweep, the trial's number, what was told and what is running:
a process that died, and is told the same again, proposes the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from dlsys.spec.sweep import space
from dlsys.spec.sweep.sweep import Sweep

Settings = dict[str, Any]
# A place in the unit cube of the space; two settings that mean the same have the same.
Point = tuple[float, ...]

# Draws until one is new, and the most values of a space that are gone through when none was.
_DRAWS, _FEW = 64, 100_000


@dataclass(frozen=True)
class Told:
    """How a trial did.

    Attributes:
        trial: its number, from 0.
        settings: what it was trained with: a value of the space.
        value: the sweep's metric; None: it failed. One that is not finite is taken as a failure.
        epochs: how far it was trained; None where epochs do not count.
    """

    trial: int
    settings: Settings
    value: float | None
    epochs: int | None


class Searcher(ABC):
    """Chooses settings.

    Args:
        sweep: with its defaults resolved, so that it has a mode.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.tree, wrong = space.parse(sweep.space)
        assert not wrong, "a sweep is checked before it searches"

    @abstractmethod
    def propose(self, trial: int) -> Settings | None:
        """The settings of a trial; None when nothing is left to try.

        Asked again for a trial, it answers the same.
        """

    def tell(self, told: Told) -> None:  # noqa: B027 - some searchers do not learn
        """A trial ended, or came as far as `epochs`: it may be told more than once, at each rung."""

    def running(self, trial: int, settings: Settings) -> None:  # noqa: B027
        """A trial is under way with settings that a process before this one proposed."""

    def warm(self, earlier: Iterable[Told]) -> int:
        """Takes over what trials of earlier sweeps did; their numbers stand for none of this one's.

        Returns:
            How many were left out, because their settings are not in this sweep's space.
        """
        return sum(not space.holds(self.tree, told.settings) for told in earlier)

    def _drawn(self, trial: int, tried: Collection[Point] = ()) -> Settings | None:
        """The settings of a trial that is given in `points`, or drawn at random.

        Args:
            tried: where other trials have been; what is drawn is none of these, or None where no other
                place is left. Population-based training begins with as many as it wants.
        """
        drawn = space.sample(self.tree, self.sweep.seed, trial)
        if trial < len(self.sweep.points):
            return drawn | self.sweep.points[trial]
        if not tried or self.sweep.scheduler.name == "pbt":
            return drawn
        for attempt in range(1, _DRAWS):
            if self._point(drawn) not in tried:
                return drawn
            drawn = space.sample(self.tree, self.sweep.seed, trial + attempt * 2**32)
        if (count := space.size(self.tree)) is None or count > _FEW:
            return drawn
        return next((value for value in space.values(self.tree) if self._point(value) not in tried), None)

    def _point(self, settings: Settings) -> Point:
        return tuple(space.to_cube(self.tree, settings))
