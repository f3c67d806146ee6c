"""What it costs to start several workers: `dlsys run` against torchrun and against raw Ray Train.

    python benchmarks/launch.py [--quick] [--repetitions 5] [--steps 300] [--loops 9] [--loop-steps 3000]

Every way trains LeNet-5 on digits on 2 workers, for the same number of steps, and evaluates and
saves after each epoch. The ways take turns, so that what else the machine does falls on all of them
alike. *Attached* ways use a Ray that is already running. TorchTrainer is raw Ray Train, with the
settings of its documentation.

The loop's rate is taken from longer runs, in turns of their own: of 300 steps, which take less than a
second, the first ones share the cores with what still starts. Once with a checkpoint every 30 seconds,
once with one after each epoch, which is 22 steps here; dlsys makes each of them durable.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from side_by_side import Row, report

_HERE = Path(__file__).parent
_BIN = Path(sys.executable).parent
_PEERS = _HERE / "peers"
_WARM_UP = 50
_SELDOM = 30  # seconds between two checkpoints; an epoch takes about a tenth of a second
_WHAT = {"seconds": "", "loop_seconds": ": steps/s in the loop"}


def job_file(folder: Path, steps: int, save_seconds: int = 0) -> Path:
    job = yaml.safe_load((_HERE.parent / "jobs" / "quickstart.yaml").read_text())
    job |= {"name": "launch", "stop": {"steps": steps}}
    del job["expect"]
    if save_seconds:
        job["checkpoint"] = {"every": f"{save_seconds} s"}
    path = folder / f"launch-{steps}-{save_seconds}.yaml"
    path.write_text(yaml.safe_dump(job, sort_keys=False))
    return path


def cold(job: Path, steps: int, save_seconds: int = 0) -> dict[str, list[str]]:
    torchrun = [str(_BIN / "torchrun"), "--standalone", "--nproc-per-node", "2"]
    return {
        "torchrun": [
            *(*torchrun, str(_PEERS / "torchrun_lenet.py"), "--steps", str(steps)),
            *("--save-seconds", str(save_seconds)),
        ],
        "dlsys run": [sys.executable, "-m", "dlsys.cli.main", "run", str(job)],
        "TorchTrainer": [sys.executable, str(_PEERS / "ray_train_lenet.py"), "--steps", str(steps)],
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
    """Wall time of a whole command, and the time of its loop over its steps where it is told.

    Evaluations, checkpoints and logging are in it, on both sides.
    """
    load = os.getloadavg()[0]
    for _ in range(3):
        begun = time.perf_counter()
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - begun
        # gloo aborts now and then when the peer's process ends; that is not what is measured.
        if done.returncode == 0 or "terminate called" not in done.stderr:
            break
    if done.returncode:
        raise RuntimeError(f"{command} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    found = {"seconds": seconds, "load": load}
    if "torchrun" in command[0]:
        found |= json.loads(done.stdout.splitlines()[-1])
    elif "dlsys.cli.main" in command:
        runs = (folder / ".dlsys" / "runs").iterdir()
        found["loop_seconds"] = logged_loop_seconds(max(runs, key=lambda run: run.stat().st_ctime))
    return found


def logged_loop_seconds(run: Path) -> float:
    """A step's share of the loop's time, after the warm-up, by the times of what it logged."""
    records = [json.loads(line) for line in (run / "spool" / "rank-0.jsonl").read_text().splitlines()]
    points = [point for point in records if "m" in point and point["s"] >= _WARM_UP]
    first, last = points[0], points[-1]
    return (last["t"] - first["t"]) / 1000 / (last["s"] - first["s"])


def loop_turn(folder: Path, steps: int, save_seconds: int) -> dict[str, dict[str, float]]:
    commands = cold(job_file(folder, steps, save_seconds), steps, save_seconds)
    turn = {way: measure(commands[way], folder) for way in ("torchrun", "dlsys run")}
    print("  ".join(f"{way} {turn[way]['loop_seconds'] * 1e3:.2f} ms" for way in turn), file=sys.stderr)
    return turn


def row(work: str, peer: str, what: str, turns: list[dict[str, dict[str, float]]], goal: str) -> Row:
    """How one way compares with another, turn by turn; steps are compared by their rate."""
    ours, theirs = ([turn[way][what] for turn in turns] for way in (work, peer))
    ratios = [a / b if what == "seconds" else b / a for a, b in zip(ours, theirs, strict=True)]
    return Row(
        work=work + _WHAT[what],
        peer=peer,
        ours=statistics.median(ours),
        theirs=statistics.median(theirs),
        ratio=statistics.median(ratios),
        spread=(min(ratios), max(ratios)),
        unit="s",
        goal=goal,
        load=statistics.median(turn[work]["load"] for turn in turns),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one turn")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--loops", type=int, default=9, help="turns for a step's time")
    parser.add_argument("--loop-steps", type=int, default=3000)
    arguments = parser.parse_args()
    os.environ.update(RAY_AUTH_MODE="token", RAY_USAGE_STATS_ENABLED="0", OMP_NUM_THREADS="1")
    turns: list[dict[str, dict[str, float]]] = []
    # Ray's sockets need a short path.
    with tempfile.TemporaryDirectory(prefix="launch-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        job = job_file(folder, arguments.steps)
        for _ in range(1 if arguments.quick else arguments.repetitions):
            turn = {way: measure(command, folder) for way, command in cold(job, arguments.steps).items()}
            # The running Ray would take from the others' CPUs: it runs for the attached ways alone.
            with running_ray(folder) as address:
                for way, command in cold(job, arguments.steps).items():
                    if way != "torchrun":
                        turn[f"{way}, attached"] = measure([*command, "--address", address], folder)
            turns.append(turn)
            print(
                "  ".join(f"{way} {found['seconds']:.1f} s" for way, found in turn.items()), file=sys.stderr
            )
        loops = range(1 if arguments.quick else arguments.loops)
        seldom = [loop_turn(folder, arguments.loop_steps, _SELDOM) for _ in loops]
        often = [loop_turn(folder, arguments.loop_steps, 0) for _ in loops]
    report(
        "launch",
        [
            row("dlsys run", "torchrun", "seconds", turns, "<= 3"),
            row("dlsys run", "TorchTrainer", "seconds", turns, "<= 1"),
            row("dlsys run, attached", "torchrun", "seconds", turns, "<= 1.5"),
            row("dlsys run, attached", "TorchTrainer, attached", "seconds", turns, "<= 1"),
            row("dlsys run", "torchrun", "loop_seconds", seldom, ">= 0.97"),
            row("dlsys run, a checkpoint every 22 steps", "torchrun", "loop_seconds", often, ">= 0.97"),
        ],
    )


if __name__ == "__main__":
    main()
