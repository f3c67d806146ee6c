"""Environment steps a second, and the time to CartPole's 475: dlsys against RLlib and Stable-Baselines3.

    python benchmarks/agents.py [--quick] [--repetitions 5] [--steps 40000]

All three learn PPO and DQN with the same settings, eight environments at once, one core and one thread; the
ways take turns. The rate is that of sampling and learning together, without the start. RLlib's DQN takes a
quarter
of the steps: all of them would take it five minutes. PPO also learns from images of 84 × 84, with the
convolutions of Mnih et al. 2015. One env runner and two are compared where a step of the environment waits
ten milliseconds, as for a simulator.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from side_by_side import Row, report

_HERE = Path(__file__).parent
_JOBS = _HERE.parent / "jobs" / "rl"
_ALGORITHMS = ("ppo", "dqn")
_WAYS = ("dlsys", "rllib", "sb3")
_NAMES = {"rllib": "RLlib", "sb3": "Stable-Baselines3", "one": "one env runner"}
# An environment whose steps take time, and little learning: what env runners are for.
_SLOW = ("environment.name=slow_env:SlowCartPole", "environment.max_steps=500", "algorithm.passes=1")
_SLOW_STEPS = 6_000
_IMAGES = (
    *("environment.name=pixel_env:Pixels", "algorithm.hidden=[512]", "algorithm.activation=relu"),
    *("model.filters=[[32, 8, 4], [64, 4, 2], [64, 3, 1]]", "algorithm.batch_size=1024"),
    *("algorithm.minibatch_size=256", "algorithm.passes=4"),
)
_IMAGE_STEPS = 4_096

Turn = dict[str, dict[str, float]]
"""By way, what it told."""


def measure(way: str, algorithm: str, steps: int, folder: str, *told: str) -> dict[str, float]:
    job = _JOBS / f"cartpole_{algorithm}.yaml"
    command = [sys.executable, str(_HERE / "peers" / "agent_peers.py"), way, str(job), str(steps)]
    done = subprocess.run([*command, *told], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{way} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found | {"load": os.getloadavg()[0]}


def row(work: str, ours: str, theirs: str, what: str, turns: list[Turn], goal: str) -> Row | None:
    """None where one of them never reached the target."""
    pairs = [(turn[ours][what], turn[theirs][what]) for turn in turns]
    pairs = [(mine, yours) for mine, yours in pairs if mine and yours]
    if not pairs:
        return None
    ratios = [mine / yours for mine, yours in pairs]
    return Row(
        work=work,
        peer=_NAMES[theirs.split()[-1]],
        ours=statistics.median(mine for mine, _ in pairs),
        theirs=statistics.median(yours for _, yours in pairs),
        ratio=statistics.median(ratios),
        spread=(min(ratios), max(ratios)),
        unit="steps/s" if what == "rate" else "s",
        goal=goal,
        load=statistics.median(turn[ours]["load"] for turn in turns),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one turn")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40_000)
    arguments = parser.parse_args()
    os.environ.update(
        OMP_NUM_THREADS="1",
        PYTHONPATH=os.pathsep.join([str(_HERE / "peers"), os.environ.get("PYTHONPATH", "")]),
        RAY_USAGE_STATS_ENABLED="0",
        RAY_AUTH_MODE="disabled",
    )
    turns: list[Turn] = []
    with tempfile.TemporaryDirectory(prefix="agents-") as folder:
        for seed in range(1 if arguments.quick else arguments.repetitions):
            settings = ("resources.envs=8", f"seed={seed}")
            turns.append({})
            for algorithm in _ALGORITHMS:
                for way in _WAYS:
                    name = f"{algorithm} {way}"
                    steps = arguments.steps // (4 if name == "dqn rllib" else 1)
                    turns[-1][name] = measure(way, algorithm, steps, folder, *settings)
            for way in ("dlsys", "sb3"):
                told = (*settings, *_IMAGES)
                turns[-1][f"images {way}"] = measure(way, "ppo", _IMAGE_STEPS, folder, *told)
            for way, count in (("one", 1), ("two", 2)):
                several = (*_SLOW, f"resources.env_runners={count}", f"seed={seed}")
                turns[-1][way] = measure("dlsys", "ppo", _SLOW_STEPS, folder, *several)
            told = "  ".join(f"{way} {found['rate']:,.0f} steps/s" for way, found in turns[-1].items())
            print(told, file=sys.stderr)
    rows = [
        row("two env runners, 10 ms a step", "two", "one", "rate", turns, ">= 1.9"),
        row("ppo on images", "images dlsys", "images sb3", "rate", turns, ">= 1"),
    ]
    goals = {"ppo sb3": ">= 1.8", "dqn sb3": ">= 1.5"}
    for algorithm in _ALGORITHMS:
        for peer in _WAYS[1:]:
            pair, work = (f"{algorithm} dlsys", f"{algorithm} {peer}"), f"{algorithm} on CartPole"
            rows.append(row(work, *pair, "rate", turns, goals.get(pair[1], ">= 1")))
            quick = "<= 0.8" if peer == "sb3" else "<= 1"
            rows.append(row(f"{work}: time to 475", *pair, "seconds_to_target", turns, quick))
    report("agents", [found for found in rows if found])


if __name__ == "__main__":
    main()
