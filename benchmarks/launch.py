"""What it costs to start several workers: `dlsys run` against torchrun and against raw Ray Train.

    python benchmarks/launch.py [--quick] [--repetitions 5] [--steps 300]

Every way trains LeNet-5 on digits on 2 workers, for the same number of steps, and evaluates and
saves after each epoch. The ways take turns, so that what else the machine does falls on all of them
alike; a figure is the median, a ratio the median of the ratios within a turn. *Attached* ways
use a Ray that is already running. Results also go to `benchmarks/results/launch.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import yaml

_HERE = Path(__file__).parent
_BIN = Path(sys.executable).parent
_PEERS = _HERE / "peers"
_WARM_UP = 50
# A load average above this says that others use the machine too.
_QUIET = 0.5


def job_file(folder: Path, steps: int) -> Path:
    job = yaml.safe_load((_HERE.parent / "jobs" / "quickstart.yaml").read_text())
    job |= {"name": "launch", "stop": {"steps": steps}}
    del job["expect"]
    path = folder / "launch.yaml"
    path.write_text(yaml.safe_dump(job, sort_keys=False))
    return path


def commands(job: Path, steps: int, address: str) -> dict[str, list[str]]:
    dlsys = [sys.executable, "-m", "dlsys.cli.main", "run", str(job)]
    ray_train = [sys.executable, str(_PEERS / "ray_train_lenet.py"), "--steps", str(steps)]
    torchrun = [str(_BIN / "torchrun"), "--standalone", "--nproc-per-node", "2"]
    return {
        "torchrun": [*torchrun, str(_PEERS / "torchrun_lenet.py"), "--steps", str(steps)],
        "dlsys": dlsys,
        "dlsys attached": [*dlsys, "--address", address],
        "ray train": ray_train,
        "ray train attached": [*ray_train, "--address", address],
    }


@contextmanager
def running_ray(folder: Path) -> Iterator[str]:
    """A Ray of this benchmark alone; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with open(folder / "ray.log", "w") as log:
        ray = subprocess.Popen(
            [
                *(str(_BIN / "ray"), "start", "--head", "--block", "--num-cpus=2", f"--port={port}"),
                *("--dashboard-agent-listen-port=0", "--include-dashboard=false"),
                *("--object-store-memory=100000000", f"--temp-dir={folder / 'ray'}"),
            ],
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 60
        while "started" not in (folder / "ray.log").read_text():
            if ray.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("Ray did not start:\n" + (folder / "ray.log").read_text())
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        ray.send_signal(signal.SIGTERM)
        ray.wait(60)


def measure(command: list[str], folder: Path) -> dict[str, float]:
    """Wall time of a whole command, and the mean time of a training step where it is told."""
    load = os.getloadavg()[0]
    begun = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise RuntimeError(f"{command} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    found = {"seconds": seconds, "load": load}
    if "torchrun" in command[0]:
        found["step_seconds"] = json.loads(done.stdout.splitlines()[-1])["step_seconds"]
    elif runs := sorted((folder / ".dlsys" / "runs").glob("*"), key=lambda run: run.stat().st_ctime):
        found["step_seconds"] = logged_step_seconds(runs[-1]) if "run" in command else 0.0
    return {name: value for name, value in found.items() if value}


def logged_step_seconds(run: Path) -> float:
    points = [json.loads(line) for line in (run / "spool" / "rank-0.jsonl").read_text().splitlines()]
    steps = [
        point["m"]["perf/step_seconds"]
        for point in points
        if "perf/step_seconds" in point.get("m", {}) and point["s"] > _WARM_UP
    ]
    return statistics.fmean(steps)


def summary(turns: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    rows = {}
    for way in turns[0]:
        found = [turn[way] for turn in turns]
        row = {
            "seconds": statistics.median(one["seconds"] for one in found),
            "least": min(one["seconds"] for one in found),
            "most": max(one["seconds"] for one in found),
            "times torchrun": statistics.median(
                turn[way]["seconds"] / turn["torchrun"]["seconds"] for turn in turns
            ),
            "load": statistics.median(one["load"] for one in found),
        }
        if "step_seconds" in found[0]:
            row["step ms"] = 1e3 * statistics.median(one["step_seconds"] for one in found)
            row["steps/s of torchrun's"] = statistics.median(
                turn["torchrun"]["step_seconds"] / turn[way]["step_seconds"] for turn in turns
            )
        rows[way] = row
    return rows


def show(rows: dict[str, dict[str, float]]) -> None:
    names = list(rows["torchrun"])
    print(f"{'':20}" + "".join(f"{name:>24}" for name in names))
    for way, row in rows.items():
        cells = (f"{row[name]:24.2f}" if name in row else f"{'':24}" for name in names)
        print(f"{way:20}" + "".join(cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one turn")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()
    # Ray's own sockets need a short path.
    folder = Path(tempfile.mkdtemp(prefix="launch-"))
    os.environ.update(RAY_AUTH_MODE="token", RAY_USAGE_STATS_ENABLED="0", OMP_NUM_THREADS="1")
    quiet_before = os.getloadavg()[0]
    turns: list[dict[str, dict[str, float]]] = []
    try:
        job = job_file(folder, arguments.steps)
        for turn in range(1 if arguments.quick else arguments.repetitions):
            ways: dict[str, dict[str, float]] = {}
            for way, command in commands(job, arguments.steps, "").items():
                if "attached" not in way:
                    ways[way] = measure(command, folder)
                    print(f"turn {turn + 1} {way}: {ways[way]['seconds']:.1f} s", file=sys.stderr)
            # The running Ray would take from the others' CPUs: it runs for the attached ways alone.
            with running_ray(folder) as address:
                for way, command in commands(job, arguments.steps, address).items():
                    if "attached" in way:
                        ways[way] = measure(command, folder)
                        print(f"turn {turn + 1} {way}: {ways[way]['seconds']:.1f} s", file=sys.stderr)
            turns.append(ways)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows = summary(turns)
    show(rows)
    if max(row["load"] for row in rows.values()) > (os.cpu_count() or 1) + _QUIET:
        print("The machine was busy with other work: repeat on a quiet one before quoting these figures.")
    result = {
        "command": " ".join(["python", *sys.argv]),
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} CPUs, {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: version(name) for name in ("dlsys", "ray", "torch", "mlflow")},
        "load_before": quiet_before,
        "summary": rows,
        "turns": turns,
    }
    target = _HERE / "results" / "launch.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
