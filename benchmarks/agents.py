"""Environment steps a second, and the time to CartPole's 475: dlsys against RLlib and Stable-Baselines3.

    python benchmarks/agents.py [--quick] [--repetitions 5] [--steps 40000]

All three learn with the same settings, eight environments at once, one core and one thread; the ways take
turns. The rate is that of sampling and learning together, without the start. Beyond the goals would be
1.8 times Stable-Baselines3's rate. One env runner and two are compared where a step of the environment
costs a millisecond, and each has a core.
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
_JOB = _HERE.parent / "jobs" / "rl" / "cartpole_ppo.yaml"
_WAYS = ("dlsys", "rllib", "sb3")
_NAMES = {"rllib": "RLlib", "sb3": "Stable-Baselines3", "one": "one env runner"}
# An environment whose steps cost something, and little learning: what env runners are for.
_SLOW = ("environment.name=slow_env:SlowCartPole", "environment.max_steps=500", "algorithm.passes=1")
_SLOW_STEPS = 10_000


def measure(way: str, steps: int, folder: str, *told: str) -> dict[str, float]:
    command = [sys.executable, str(_HERE / "peers" / "agent_peers.py"), way, str(_JOB), str(steps)]
    done = subprocess.run([*command, *told], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{way} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found | {"load": os.getloadavg()[0]}


def row(
    peer: str,
    what: str,
    turns: list[dict[str, dict[str, float]]],
    goal: str,
    *,
    way: str = "dlsys",
    work: str = "ppo on CartPole",
) -> Row:
    pairs = [(turn[way][what], turn[peer][what]) for turn in turns]
    pairs = [(ours, theirs) for ours, theirs in pairs if ours and theirs]
    ratios = [ours / theirs for ours, theirs in pairs]
    return Row(
        work=work + (": time to 475" if what != "rate" else ""),
        peer=_NAMES[peer],
        ours=statistics.median(ours for ours, _ in pairs),
        theirs=statistics.median(theirs for _, theirs in pairs),
        ratio=statistics.median(ratios),
        spread=(min(ratios), max(ratios)),
        unit="steps/s" if what == "rate" else "s",
        goal=goal,
        load=statistics.median(turn["dlsys"]["load"] for turn in turns),
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
    turns = []
    with tempfile.TemporaryDirectory(prefix="agents-") as folder:
        for seed in range(1 if arguments.quick else arguments.repetitions):
            settings = ("resources.envs=8", f"seed={seed}")
            turns.append({way: measure(way, arguments.steps, folder, *settings) for way in _WAYS})
            for way, count in (("one", 1), ("two", 2)):
                turns[-1][way] = measure(
                    "dlsys", _SLOW_STEPS, folder, *_SLOW, f"resources.env_runners={count}", f"seed={seed}"
                )
            told = "  ".join(f"{way} {found['rate']:,.0f} steps/s" for way, found in turns[-1].items())
            print(told, file=sys.stderr)
    rows = [
        row("rllib", "rate", turns, ">= 1"),
        row("sb3", "rate", turns, ">= 1"),
        row("one", "rate", turns, ">= 1.6", way="two", work="two env runners, 1 ms a step"),
    ]
    for peer in ("rllib", "sb3"):
        if any(turn["dlsys"]["seconds_to_target"] and turn[peer]["seconds_to_target"] for turn in turns):
            rows.append(row(peer, "seconds_to_target", turns, "<= 1"))
    report("agents", rows)


if __name__ == "__main__":
    main()
