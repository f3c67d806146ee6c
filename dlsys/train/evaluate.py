"""Measures a split with all workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from dlsys.data.loader import Loader
from dlsys.train.strategies import Strategy
from dlsys.train.world import World


def evaluate(
    strategy: Strategy, loader: Loader, world: World, *, beat: Callable[[], None] = lambda: None
) -> dict[str, Tensor]:
    """The sums of a whole split over all workers: the same on each, and with any number of them.

    A worker that dies takes its rows' sums with it: then those who are left measure the whole again.
    """
    while True:
        members = world.members
        if len(members) < world.size:
            loader = loader.placed(members.index(world.rank), len(members))
        totals = _measure(strategy, loader, beat)
        names = sorted(totals)
        sums = world.sum_all([totals[name] for name in names])
        if world.members == members:
            return dict(zip(names, sums, strict=True))


def _measure(strategy: Strategy, loader: Loader, beat: Callable[[], None]) -> dict[str, Tensor]:
    """This worker's sums."""
    totals: dict[str, Tensor] = {}
    carries: dict[int, Any] = {}
    for batch in loader.epoch(0):
        for index, micro in enumerate(batch.micros):
            sums, carries[index] = strategy.evaluate_step(micro, carries.get(index))
            for name, value in sums.items():
                value = value.detach().double()
                totals[name] = totals[name] + value if name in totals else value
        beat()
    return totals
