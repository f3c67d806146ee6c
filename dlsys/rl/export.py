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

from dlsys.errors import UsageError
from dlsys.registry import ALGORITHMS, import_string
from dlsys.rl import environments
from dlsys.rl.actions import Actions, Taken
from dlsys.rl.policy import RecurrentPolicy
from dlsys.spec.rl.job import RLJob
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
    acts = policy(job, saved.model).eval()
    seen, actions = _asked(job)
    shown = [seen]
    if isinstance(acts, RecurrentPolicy):
        shown.append(acts.initial.repeat(len(seen), 1))
    shapes = ({0: Dim("N")},) * len(shown)
    program = torch.export.export(Taken(acts, actions), tuple(shown), dynamic_shapes=shapes, strict=False)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, buffer)
    try:
        target.write_bytes(buffer.getvalue())
    except OSError as error:
        raise UsageError(f"{target}: cannot be written: {error.strerror}") from error
    return saved.position.step, sum(tensor.numel() for tensor in saved.model.values())


def _asked(job: RLJob) -> tuple[Tensor, Actions]:
    """Two observations, and what the environment takes."""
    env = environments.make(job.environment, flat=job.algorithm.FLAT)
    try:
        seen: Any = np.stack([np.asarray(env.observation_space.sample())] * 2)
    finally:
        env.close()
    kind = torch.float32 if job.algorithm.FLAT else None
    return torch.as_tensor(seen, dtype=kind), env.actions
