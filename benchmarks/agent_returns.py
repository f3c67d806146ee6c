"""What every ready agent earns: the test return of its job file, or what that expects first, over seeds.

    python benchmarks/agent_returns.py [NAME ...] [--seeds 3] [--parallel 2] > docs/agents.md

Runs `dlsys run jobs/rl/NAME.yaml seed=N`, in a folder of its own, and prints a Markdown table. A job that
misses what its file expects, or fails, is in the table as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

_JOBS = Path(__file__).parents[1] / "jobs" / "rl"
_HEAD = """\
# What agents earn

What `make agents` said last of the files in `jobs/rl`: the mean return of the test episodes, or of a metric
that is named; they are played without exploration from starts that neither training nor validation has seen;
training stopped at the file's target, or at its last step. On 2 CPU cores, two runs at a time; seconds are of
the whole command. Of algorithms that learn from recorded episodes, steps are rows learned from; of those that
plan, sweeps over all states.

| job | expected | test return by seed | mean | steps | seconds |
|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Ran:
    """One run: its test metric (None where it failed), steps and seconds."""

    earned: float | None
    steps: int
    seconds: float


def run(job: Path, seed: int) -> Ran:
    with tempfile.TemporaryDirectory(prefix="agent-", ignore_cleanup_errors=True) as folder:
        done = subprocess.run(
            [sys.executable, "-m", "dlsys.cli.main", "run", str(job), f"seed={seed}", "--json"],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "DLSYS_HOME": f"{folder}/.dlsys"},
            capture_output=True,
            text=True,
            check=False,
        )
    try:
        told = json.loads(done.stdout)
    except ValueError:
        print(f"{job.stem} seed {seed}:\n{done.stderr[-2000:]}", file=sys.stderr)
        return Ran(None, 0, 0.0)
    earned = told["metrics"].get(expected(job)[0])
    print(f"{job.stem} seed {seed}: {earned} in {told['seconds']:.0f} s", file=sys.stderr)
    return Ran(earned, told["step"], told["seconds"])


def expected(job: Path) -> tuple[str, str]:
    """The first metric that a job file expects, and its bound."""
    metric, bound = next(iter(yaml.safe_load(job.read_text())["expect"].items()))
    return metric, bound


def row(job: Path, runs: list[Ran]) -> str:
    metric, bound = expected(job)
    told = bound if metric == "test/return" else f"{metric.removeprefix('test/')} {bound}"
    earned = [ran.earned for ran in runs]
    known = [value for value in earned if value is not None]
    mean = f"{statistics.mean(known):.4g}" if len(known) == len(runs) else "failed"
    each = ", ".join("failed" if value is None else f"{value:.4g}" for value in earned)
    steps = statistics.median(ran.steps for ran in runs)
    seconds = statistics.median(ran.seconds for ran in runs)
    return f"| `rl/{job.stem}` | {told} | {each} | {mean} | {steps:,.0f} | {seconds:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="job files; by default all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--parallel", type=int, default=2)
    arguments = parser.parse_args()
    names = arguments.names or sorted(path.stem for path in _JOBS.glob("*.yaml"))
    jobs = [_JOBS / f"{name}.yaml" for name in names]
    print(_HEAD)
    with ThreadPoolExecutor(arguments.parallel) as pool:
        runs = {job: [pool.submit(run, job, seed) for seed in range(arguments.seeds)] for job in jobs}
        for job in jobs:
            print(row(job, [ran.result() for ran in runs[job]]), flush=True)


if __name__ == "__main__":
    main()
