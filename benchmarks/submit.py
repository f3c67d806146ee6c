"""What it costs to send a job to a cluster: `dlsys submit` against `ray job submit`, on the same cluster.

    python benchmarks/submit.py [--quick] [--repetitions 7]

The job does nothing (`python -c pass`). *Acknowledged* is the whole command that sends it and does not wait;
its job ends before the next turn. *End to end* is the whole command that waits and prints the job's log.
Beyond the goals would be ratios of 0.15 and 0.3.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

from side_by_side import compare, report, seconds

_DLSYS = (sys.executable, "-m", "dlsys.cli.main")
_RAY = str(Path(sys.executable).parent / "ray")
_JOB = ("--", sys.executable, "-c", "pass")
_CLUSTER = """\
kind: cluster
name: bench
provider: local
nodes: [{name: head, cpus: 2}]
"""


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """A cluster of this benchmark alone; `ray` and `dlsys` find it by the environment."""
    file = folder / "cluster.yaml"
    file.write_text(_CLUSTER)
    os.environ["DLSYS_HOME"] = str(folder / "home")
    try:
        run(*_DLSYS, "cluster", "up", str(file))
        found = json.loads(run(*_DLSYS, "cluster", "status", "bench", "--json"))
        os.environ.update(
            RAY_API_SERVER_ADDRESS=found["dashboard"],
            RAY_AUTH_MODE="token",
            RAY_AUTH_TOKEN_PATH=found["token_path"],
        )
        yield
    finally:
        subprocess.run([*_DLSYS, "cluster", "down", "bench"], capture_output=True, check=False)


def ours_acknowledged() -> float:
    began = time.perf_counter()
    job = run(*_DLSYS, "submit", "-d", "--cluster", "bench", *_JOB).strip()
    taken = time.perf_counter() - began
    run(*_DLSYS, "jobs", "wait", job, "--cluster", "bench")
    return taken


def theirs_acknowledged() -> float:
    job = f"bench-{secrets.token_hex(8)}"
    taken = seconds(lambda: run(_RAY, "job", "submit", "--no-wait", "--submission-id", job, *_JOB))
    run(_RAY, "job", "logs", "--follow", job)
    return taken


def ours_to_the_end() -> float:
    return seconds(lambda: run(*_DLSYS, "submit", "--cluster", "bench", *_JOB))


def theirs_to_the_end() -> float:
    return seconds(lambda: run(_RAY, "job", "submit", *_JOB))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one turn")
    parser.add_argument("--repetitions", type=int, default=7)
    arguments = parser.parse_args()
    turns = 1 if arguments.quick else arguments.repetitions
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray's sockets need a short path.
    with tempfile.TemporaryDirectory(prefix="submit-", ignore_cleanup_errors=True) as name:
        work = Path(name) / "work"  # with nothing in it: neither side has anything to send along
        work.mkdir()
        with chdir(work), cluster(Path(name)):
            rows = [
                compare(
                    "dlsys submit -d: acknowledged",
                    "ray job submit --no-wait",
                    ours_acknowledged,
                    theirs_acknowledged,
                    goal="<= 0.5",
                    runs=turns,
                ),
                compare(
                    "dlsys submit: end to end",
                    "ray job submit",
                    ours_to_the_end,
                    theirs_to_the_end,
                    goal="<= 1.0",
                    runs=turns,
                ),
            ]
    report("submit", rows)


if __name__ == "__main__":
    main()
