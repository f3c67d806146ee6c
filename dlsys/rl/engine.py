"""Builds an agent from a checked job, and runs its loop."""

from __future__ import annotations

from pathlib import Path

import torch

from dlsys.errors import UsageError
from dlsys.registry import ALGORITHMS
from dlsys.rl import environments
from dlsys.rl.agent import Agent
from dlsys.rl.groups.agent import GroupAgent
from dlsys.rl.loop import Loop
from dlsys.rl.own import Networked
from dlsys.rl.progress import stepping
from dlsys.spec.rl.job import RLJob
from dlsys.spec.rl.offline import Offline
from dlsys.train.engine import Surroundings
from dlsys.train.initial import take
from dlsys.train.loop import Result
from dlsys.train.world import World


def run_agent(job: RLJob, world: World, around: Surroundings) -> Result:
    """Trains an agent, from the newest good checkpoint if there is one.

    Raises:
        RunError: the run failed; the subclass says how.
    """
    assert world.size == 1, "there is one learner"
    torch.set_num_threads(max(1, int(job.resources.cpus)))
    around.beat(0)
    several = environments.check_suits(job.algorithm, job.environment)
    agent = build(_with_files(job, around.folder), several=several)
    try:
        if isinstance(agent, Networked):
            for text in agent.observations.notes:
                around.recorder.note(text)
        loop = Loop(job, agent, around)
        around.store.tidy()
        with stepping(lambda: around.beat(loop.position.step)):
            if saved := around.store.latest():
                loop.resume(saved)
            elif job.init and isinstance(agent, Networked):
                around.recorder.note(take(agent.network, job.init, around.folder)[1])
            return loop.run()
    finally:
        agent.close()


def _with_files(job: RLJob, folder: Path) -> RLJob:
    """The job with its files found from the folder where relative paths start."""
    if not isinstance(job.algorithm, Offline):
        return job
    found = job.algorithm.model_copy(update={"episodes": str(folder / job.algorithm.episodes)})
    return job.model_copy(update={"algorithm": found})


def build(job: RLJob, *, several: bool = False) -> Agent:
    """The agent of a job, or the agents, where there are several in its environment.

    Raises:
        UsageError: the job says of policies, or of memories, what its environment is not for.
    """
    name = job.environment.name
    if several and job.model.memory:
        raise UsageError(f"model.memory: {name} has several agents, which learn without: leave it out")
    if not several and job.policies != "shared":
        raise UsageError(f"policies: {name} has one agent: leave it out")
    if not job.algorithm.RLLIB:
        kind = ALGORITHMS.load(job.algorithm.name)
        made: Agent = GroupAgent(job, kind) if several else kind(job)
        return made
    from dlsys.rl.rllib import RllibAgent

    return RllibAgent(job)
