"""Measures a split with all workers."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

from dlsys.data.loader import Loader
from dlsys.train.strategies import Strategy
from dlsys.train.world import World


def evaluate(
    strategy: Strategy,
    loader: Loader,
    world: World,
    *,
    listed: Collection[str] = (),
    beat: Callable[[], None] = lambda: None,
) -> dict[str, Tensor]:
    """The sums of a whole split over all workers: the same on each, and with any number of them.

    What is `listed` is put one after another instead of added up, in an order that the number of workers
    decides.

    A worker that dies takes its rows' sums with it: then those who are left measure the whole again.
    """
    while True:
        members = world.members
        if len(members) < world.size:
            loader = loader.placed(members.index(world.rank), len(members))
        totals = _measure(strategy, loader, listed, beat)
        added = sorted(totals.keys() - listed)
        sums = dict(zip(added, world.sum_all([totals[name] for name in added]), strict=True))
        sums |= {name: world.join(totals[name]) for name in sorted(totals.keys() & listed)}
        if world.members == members:
            return sums


def _measure(
    strategy: Strategy, loader: Loader, listed: Collection[str], beat: Callable[[], None]
) -> dict[str, Tensor]:
    """This worker's sums."""
    totals: dict[str, Tensor] = {}
    lists: dict[str, list[Tensor]] = {}
    carries: dict[int, Any] = {}
    for batch in loader.epoch(0):
        for index, micro in enumerate(batch.micros):
            sums, carries[index] = strategy.evaluate_step(micro, carries.get(index))
            for name, value in sums.items():
                value = value.detach().double()
                if name in listed:
                    lists.setdefault(name, []).append(value)
                else:
                    totals[name] = totals[name] + value if name in totals else value
        beat()
    return totals | {name: torch.cat(values) for name, values in lists.items()}
