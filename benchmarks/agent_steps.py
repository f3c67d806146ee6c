"""How many steps of the environment agents take until they earn a return, side by side.

    python benchmarks/agent_steps.py JOB JOB --reach R [--every 100] [--seeds 3]

    python benchmarks/agent_steps.py pendulum_sac pendulum_mbpo --reach=-250
    python benchmarks/agent_steps.py cartpole_dqn cartpole_rainbow --reach 475 --every 1000

An agent of `jobs/rl` is evaluated whenever it has taken so many steps, without exploration, with its
file's `episodes.valid`; its steps are those before the first evaluation whose mean return is R or more.
One thread, one agent at a time.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import ray
import torch

from dlsys.rl.agent import Agent
from dlsys.rl.engine import build
from dlsys.rl.evaluate import play
from dlsys.rl.rllib import RllibAgent
from dlsys.spec.load import load
from dlsys.spec.rl.job import RLJob

_JOBS = Path(__file__).parents[1] / "jobs" / "rl"


def steps_until(job: RLJob, reach: float, every: int) -> int | None:
    """None where the job's `stop.steps` come first."""
    agent = build(job)
    _iterate_briefly(agent, every)
    steps = looked = 0
    began = time.perf_counter()
    try:
        while steps < (job.stop.steps or sys.maxsize):
            steps += agent.iterate().steps
            if steps // every == looked:
                continue
            looked = steps // every
            played = play(
                agent,
                job.environment,
                job.episodes.valid,
                flat=job.algorithm.FLAT,
                seed=job.seed,
                split="valid",
            )
            earned, seconds = played.summary()["return"], time.perf_counter() - began
            print(f"{job.name} seed {job.seed}: {steps} {earned:.1f} {seconds:.0f} s", file=sys.stderr)
            if earned >= reach:
                return steps
    finally:
        agent.close()
    return None


def _iterate_briefly(agent: Agent, steps: int) -> None:
    """An iteration of RLlib's may take more steps than lie between two evaluations."""
    if isinstance(agent, RllibAgent):
        config: Any = agent._algorithm.config.copy(copy_frozen=False)
        agent._algorithm.config = config.reporting(min_sample_timesteps_per_iteration=steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("jobs", nargs=2, metavar="JOB", help="the second is held against the first")
    parser.add_argument("--reach", type=float, required=True)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["RAY_AUTH_MODE"] = "disabled"
    ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level=logging.ERROR)
    found: list[list[Any]] = []
    print(f"| seed | `rl/{arguments.jobs[0]}` | `rl/{arguments.jobs[1]}` | ratio |\n|---|---|---|---|")
    for seed in range(arguments.seeds):
        found.append([])
        for name in arguments.jobs:
            job = load(_JOBS / f"{name}.yaml", [f"seed={seed}"]).job
            assert isinstance(job, RLJob)
            found[-1].append(steps_until(job, arguments.reach, arguments.every))
        print(_row(str(seed), found[-1]), flush=True)
    means = [None if None in steps else statistics.mean(steps) for steps in zip(*found, strict=True)]
    print(_row("mean", means))


def _row(name: str, steps: list[Any]) -> str:
    ratio = "–" if None in steps else f"{steps[1] / steps[0]:.2f}"
    shown = ["not reached" if value is None else f"{value:,.0f}" for value in steps]
    return f"| {name} | {shown[0]} | {shown[1]} | {ratio} |"


if __name__ == "__main__":
    main()
