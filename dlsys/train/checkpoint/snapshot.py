"""What a checkpoint holds, independent of strategy and number of workers.

Model and optimizers are whole and go by parameter name. Carried state is kept for all the slots
of the global batch in order, and is cut anew for the workers that resume. Random states belong to
ranks; they come back exactly under the same number of workers, and are drawn anew from the seed
and the step under another.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from dlsys.train import seeding
from dlsys.train.average import averaged
from dlsys.train.strategies.base import State
from dlsys.train.world import World


@dataclass
class Position:
    """How far a run has come.

    Attributes:
        step: updates done.
        epoch: the current epoch, from 0.
        step_in_epoch: updates done in it.
        seconds: time spent training, over all attempts.
    """

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    seconds: float = 0.0


@dataclass
class Saved:
    """A whole training state.

    Attributes:
        position: how far the run has come.
        model: parameters and buffers by name, as training goes on from them.
        optimizers: torch's optimizer state by phase and parameter name.
        carry: carried state by phase, for all slots of the global batch; empty at an epoch's start.
        ranks: random state and unlogged sums of each worker, in order.
        loop: the loop's own state: schedule, best metric, last metrics.
        scaler: the loss scale's state; empty where there is none.
    """

    position: Position
    model: dict[str, Tensor]
    optimizers: dict[str, Any]
    carry: dict[str, Any] = field(default_factory=dict)
    ranks: list[dict[str, Any]] = field(default_factory=list)
    loop: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, float] = field(default_factory=dict)

    @property
    def weights(self) -> dict[str, Tensor]:
        """What is tested and exported: the model, with the averages of its weights where there are any."""
        return averaged(self.model, self.optimizers)

    def header(self) -> dict[str, Any]:
        found = {"position": asdict(self.position), "loop": self.loop}
        return {**found, "scaler": self.scaler} if self.scaler else found


def collect(
    state: State, position: Position, loop: dict[str, Any], rank: dict[str, Any], world: World
) -> Saved | None:
    """Brings every worker's part together on rank 0; None on the others. Called on all of them.

    Args:
        rank: this worker's own part besides its random state.
    """
    carry = state.local.get("carry", {}) if position.step_in_epoch else {}
    mine = {"random": seeding.random_state(), "carry": carry, **rank}
    parts = [part for part in world.gather(mine) if isinstance(part, dict)]
    if not world.is_main:
        return None
    carries = {
        phase: _join([tree for part in parts for _, tree in sorted(part["carry"].get(phase, {}).items())])
        for phase in carry
    }
    ranks = [{key: value for key, value in part.items() if key != "carry"} for part in parts]
    return Saved(position, state.model, state.optimizers, carries, ranks, loop, state.scaler)


def distribute(
    saved: Saved, world: World, place: tuple[int, int], *, batch_size: int, micro: int, seed: int
) -> tuple[State, dict[str, Any]]:
    """This worker's state out of a checkpoint, and its own part besides.

    Args:
        place: which share of every batch is this worker's, of how many.

    Also sets this worker's random state.
    """
    same = len(saved.ranks) == world.size
    mine = saved.ranks[world.rank] if same else {}
    if same:
        seeding.set_random_state(mine["random"])
    else:
        seeding.seed_all(seed, (place[0] + 1) + 1_000_003 * saved.position.step)
    share, parts = place[0] * micro, place[1] * micro
    edges = [batch_size * i // parts for i in range(parts + 1)]
    carry = {
        phase: {i: _cut(tree, edges[share + i], edges[share + i + 1]) for i in range(micro)}
        for phase, tree in saved.carry.items()
        if tree is not None
    }
    state = State(saved.model, saved.optimizers, {"carry": carry}, saved.scaler)
    return state, {key: value for key, value in mine.items() if key != "random"}


def _join(trees: list[Any]) -> Any:
    trees = [tree for tree in trees if tree is not None]
    if not trees:
        return None
    first = trees[0]
    if isinstance(first, Tensor):
        return torch.cat(trees)
    if isinstance(first, dict):
        return {key: _join([tree[key] for tree in trees]) for key in first}
    return type(first)(_join(list(items)) for items in zip(*trees, strict=True))


def _cut(tree: Any, start: int, end: int) -> Any:
    if isinstance(tree, Tensor):
        return tree[start:end]
    if isinstance(tree, dict):
        return {key: _cut(value, start, end) for key, value in tree.items()}
    return type(tree)(_cut(value, start, end) for value in tree)
