"""What acts in a run's checkpoint, to be played with."""

from __future__ import annotations

from pathlib import Path

from dlsys.errors import CheckpointError, UsageError
from dlsys.rl import environments
from dlsys.rl.agent import Player
from dlsys.rl.engine import build
from dlsys.rl.export import acting
from dlsys.rl.own import Saved
from dlsys.rl.plain import decode
from dlsys.spec.rl.job import RLJob, RLResources
from dlsys.train.checkpoint.export import chosen


def player(job: RLJob, checkpoints: Path, *, best: bool = False) -> tuple[Player, int]:
    """The agent of the newest good checkpoint, without env runners and without Ray.

    Args:
        job: the run's, whose environment may have been changed since.
        checkpoints: its folder of checkpoints.
        best: takes the best checkpoint.

    Returns:
        What acts, and the checkpoint's step.

    Raises:
        UsageError: there is no checkpoint, or its agent does not fit the environment.
        CheckpointError: all are damaged, or the best one is.
        WorkloadError: the user's environment raised.
    """
    saved = chosen(checkpoints, best=best)
    environments.check_suits(job.algorithm, job.environment)
    try:
        if job.algorithm.RLLIB:  # its whole algorithm would bring a learner, memories, and Ray
            from dlsys.rl.policy import PolicyPlayer
            from dlsys.rl.rllib import module_of

            return PolicyPlayer(module_of(job, saved.model).eval()), saved.position.step
        if job.algorithm.OWN:
            forms = environments.forms(job.environment)
            return Saved(acting(job, saved.model, *forms)), saved.position.step
        agent = build(job.model_copy(update={"resources": RLResources()}))
        agent.load(decode(saved.optimizers["agent"]))
    except (RuntimeError, ValueError, CheckpointError) as error:
        why = str(error).strip().splitlines()[-1].strip()
        raise UsageError(
            f"environment: the agent was trained in another one than {job.environment.name} is now: {why}"
        ) from error
    return agent, saved.position.step
