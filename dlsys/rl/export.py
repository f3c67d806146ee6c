"""What a checkpoint's agent does, as one file that needs only torch."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.utils._pytree import tree_map

from dlsys.errors import UsageError
from dlsys.registry import ALGORITHMS, import_string
from dlsys.rl import environments
from dlsys.rl.actions import Actions, Taken
from dlsys.rl.groups.observations import SeeTogether, Together
from dlsys.rl.groups.policies import Policies
from dlsys.rl.observations import Observations, See
from dlsys.rl.policy import RecurrentPolicy
from dlsys.rl.runners import Policy, network_of
from dlsys.spec.rl.job import RLJob
from dlsys.spec.rl.spaces import MASK
from dlsys.spec.rl.tabular import QLearning, QValueIteration, TDLearning, ValueIteration
from dlsys.train.checkpoint.export import chosen


class Table(nn.Module):
    """The best action of each state of a table.

    Args:
        values: what actions are worth [states, actions], or the actions themselves [states].
    """

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        best = values.argmax(dim=1) if values.ndim == 2 else values
        self.best: Tensor
        self.register_buffer("best", best)

    def forward(self, states: Tensor) -> Tensor:
        """Actions [N] for states [N]."""
        return self.best[states]


def policy(job: RLJob, weights: Mapping[str, Tensor]) -> nn.Module:
    """What acts, from observations [N, …] to actions as agents choose them, and from states to states if it
    is recurrent; no Ray runs for it.

    Args:
        job: the agent's.
        weights: as its checkpoints hold them.

    Raises:
        UsageError: it has none that a file could hold.
    """
    if job.algorithm.RLLIB:
        from dlsys.rl.rllib import module_of

        return module_of(job, weights)
    if isinstance(job.algorithm, ValueIteration | QValueIteration | QLearning):
        if "axis_0" in weights:
            raise UsageError(f"{job.name}: a table on a grid of a continuous space is no policy by itself")
        return Table(weights["q"] if "q" in weights else weights["policy"])
    if isinstance(job.algorithm, TDLearning):
        raise UsageError(f"{job.name}: td-learning values a policy that acts at random, and learns none")
    module = ALGORITHMS.target(job.algorithm.name).partition(":")[0]
    made: nn.Module = import_string(f"{module}:policy")(job, weights)
    return made


def export(job: RLJob, checkpoints: Path, target: Path, *, best: bool = False) -> tuple[int, int]:
    """Writes the policy of the newest good checkpoint for `torch.export.load`.

    Args:
        job: the run's.
        checkpoints: its folder of checkpoints.
        target: a `.pt2` file.
        best: takes the best checkpoint.

    Returns:
        The checkpoint's step, and how many numbers were written.

    Raises:
        UsageError: there is no checkpoint, or `target` cannot be written.
        CheckpointError: all are damaged, or the best one is.
    """
    saved = chosen(checkpoints, best=best)
    acts, shown = (_own if job.algorithm.OWN else _library)(job, saved.model)
    rows = Dim("N")
    shapes = tree_map(lambda _: {0: rows}, shown)
    program = torch.export.export(acts.eval(), shown, dynamic_shapes=shapes, strict=False)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, buffer)
    try:
        target.write_bytes(buffer.getvalue())
    except OSError as error:
        raise UsageError(f"{target}: cannot be written: {error.strerror}") from error
    return saved.position.step, sum(tensor.numel() for tensor in saved.model.values())


def _library(job: RLJob, weights: Mapping[str, Tensor]) -> tuple[nn.Module, tuple[Any, ...]]:
    """What acts on one array, and what it is shown: two observations, and states if it remembers."""
    acts = policy(job, weights).eval()
    env = environments.make(job.environment, sees=job.algorithm.SEES)
    try:
        seen: Any = np.stack([np.asarray(env.observation_space.sample())] * 2)
    finally:
        env.close()
    shown = torch.as_tensor(seen, dtype=torch.float32 if job.algorithm.SEES == "vector" else None)
    if isinstance(acts, RecurrentPolicy):
        return Taken(acts, env.actions), (shown, acts.initial.repeat(2, 1))
    return Taken(acts, env.actions), (shown,)


class Own(nn.Module):
    """A policy of ours, from the environment's own observations to its own actions.

    Args:
        acts: its network.
        observations, actions: the environment's.

    Attributes:
        initial: of a policy that remembers, the state where an episode begins, [S].
    """

    def __init__(self, acts: Policy, observations: Observations, actions: Actions) -> None:
        super().__init__()
        see = SeeTogether(observations) if isinstance(observations, Together) else See(observations)
        self._see, self._taken, self._acts = see, Taken(nn.Identity(), actions), acts
        first = acts.initial
        self._masked, self._remembers = observations.masked, len(first) > 0
        self.register_buffer("initial", first)

    def forward(self, observation: Any, *more: Tensor) -> Any:
        """Actions [N, …], and of a policy that remembers the next states [N, S] too.

        Args:
            observation: N of them in the environment's own form, each array [N, …].
            more: the mask of legal actions [N, K], where the environment tells it in `info`; the states
                before [N, S], of a policy that remembers.
        """
        seen = self._see(observation, more[0] if self._masked else None)
        count = next(iter(seen.values())).shape[0]  # not its length, which would be of the example alone
        before = more[-1] if self._remembers else self.get_buffer("initial").expand(count, -1)
        chosen, after = self._acts.best(seen, before)
        return (self._taken(chosen), after) if self._remembers else self._taken(chosen)


def acting(job: RLJob, weights: Mapping[str, Tensor], observations: Observations, actions: Actions) -> Policy:
    """The network of an agent of our own, with these weights."""
    several = isinstance(observations, Together)
    kind = Policies if several else ALGORITHMS.load(job.algorithm.name).NETWORK
    network = network_of(kind, observations, actions, job)
    network.load_state_dict(weights)
    return network


def _own(job: RLJob, weights: Mapping[str, Tensor]) -> tuple[nn.Module, tuple[Any, ...]]:
    """What acts, and what it is shown: two observations, and what comes with them."""
    observations, actions = environments.forms(job.environment)
    if isinstance(observations, Together) and observations.masked:
        raise UsageError(
            f"{job.environment.name}: tells what is legal in info, which no file has for several agents: "
            "tell it in their observations, under action_mask"
        )
    acts = Own(acting(job, weights, observations, actions), observations, actions)
    seen = observations.space.sample()
    shown = tree_map(lambda part: torch.as_tensor(np.stack([np.asarray(part)] * 2)), _plain(seen))
    more = [torch.ones(2, *observations.shapes[MASK], dtype=torch.bool)] if observations.masked else []
    if len(first := acts.get_buffer("initial")):
        more.append(first.repeat(2, 1))
    return acts, (shown, *more)


def _plain(seen: Any) -> Any:
    """An element of a space, of Python's own dictionaries and tuples."""
    if isinstance(seen, Mapping):
        return {name: _plain(part) for name, part in seen.items()}
    return tuple(map(_plain, seen)) if isinstance(seen, tuple) else seen
