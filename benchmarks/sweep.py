"""What a short trial costs: `dlsys run` of a sweep against raw Ray Tune and against Optuna's own loop.

    python benchmarks/sweep.py [--quick] [--trials 200] [--raw-trials 20] [--repetitions 3]

Every way tries learning rates of softmax regression on digits, one epoch a trial, which trains for about
20 ms; dlsys also keeps each trial in MLflow, with a checkpoint, and measures the test set at the end.
Raw Ray Tune runs with its defaults and starts a process for each trial, so it gets fewer of them; Optuna
runs one after the other in one process. All figures are whole commands divided by their trials, less
what the same command takes for two trials: what is left is what one more trial costs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from side_by_side import Row, report

_HERE = Path(__file__).parent
_PEERS = _HERE / "peers"
_FEW = 2


def files(folder: Path) -> None:
    job = yaml.safe_load((_HERE.parent / "jobs" / "foundation" / "softmax_regression.yaml").read_text())
    job |= {"stop": {"epochs": 1}, "resources": {"workers": 1, "cpus": 1}}
    job.pop("expect", None)
    job.pop("strategy", None)
    (folder / "job.yaml").write_text(yaml.safe_dump(job, sort_keys=False))
    sweep = {
        "kind": "sweep",
        "name": "short",
        "job": "job.yaml",
        "metric": "valid/accuracy",
        "space": {"optimizer.lr": {"log_uniform": [0.001, 1.0]}},
        "trials": 1,
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep, sort_keys=False))


def ours(trials: int) -> list[str]:
    return [sys.executable, "-m", "dlsys.cli.main", "run", "sweep.yaml", f"trials={trials}"]


def raw_tune(trials: int) -> list[str]:
    return [sys.executable, str(_PEERS / "tune_defaults.py"), "--trials", str(trials)]


def optuna(trials: int) -> list[str]:
    return [sys.executable, str(_PEERS / "optuna_loop.py"), "--trials", str(trials)]


def seconds(command: list[str], folder: Path) -> float:
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one turn")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--raw-trials", type=int, default=20)
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", OMP_NUM_THREADS="1")
    ways = {
        "dlsys": (ours, arguments.trials),
        "Ray Tune": (raw_tune, arguments.raw_trials),
        "Optuna": (optuna, arguments.trials),
    }
    turns: list[dict[str, float]] = []
    load = 0.0
    with tempfile.TemporaryDirectory(prefix="sweep-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        files(folder)
        for _ in range(1 if arguments.quick else arguments.repetitions):
            turn = {}
            load = max(load, os.getloadavg()[0])
            for way, (command, trials) in ways.items():
                few = seconds(command(_FEW), folder)
                turn[way] = (seconds(command(trials), folder) - few) / (trials - _FEW)
            turns.append(turn)
            print("  ".join(f"{way} {value:.4f} s" for way, value in turn.items()), file=sys.stderr)

    def row(peer: str, allowed: float, goal: str) -> Row:
        ratios = [turn["dlsys"] / (turn[peer] + allowed) for turn in turns]
        return Row(
            work="dlsys run of a sweep: one more trial",
            peer=f"{peer} + {allowed} s" if allowed else peer,
            ours=statistics.median(turn["dlsys"] for turn in turns),
            theirs=statistics.median(turn[peer] + allowed for turn in turns),
            ratio=statistics.median(ratios),
            spread=(min(ratios), max(ratios)),
            unit="s",
            goal=goal,
            load=load,
        )

    report("sweep", [row("Ray Tune", 0.0, "<= 0.15"), row("Optuna", 0.2, "<= 1")])


if __name__ == "__main__":
    main()
