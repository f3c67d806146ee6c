"""Slurm on one machine, as far as a cluster needs it: `fake_slurm.py PROGRAM ARGUMENTS`.

What it knows is in the folder FAKE_SLURM: a file for each job (`1.json`), `calls` with every call, and
what a test puts there: `hold` (jobs wait while it is there), `refuse` (what sbatch says and fails with),
`away` (what all say and fail with).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HOME = Path(os.environ.get("FAKE_SLURM", "/no/fake/slurm"))
OF_SLURM = ("sbatch", "squeue", "sacct", "scancel", "sinfo")


def words_of(line: str) -> list[str]:
    """An #SBATCH line's arguments by sbatch's own rules (get_argument of Slurm's src/sbatch/opt.c)."""
    words: list[str] = []
    word, quote, escaped, started = "", "", False, False
    for sign in line:
        if not quote and sign.isspace():
            words += [word] * started
            word, started, escaped = "", False, False
        elif escaped:
            word, escaped = word + sign, False
        elif sign == "\\":
            escaped = started = True
        elif quote:
            quote, word = ("", word) if sign == quote else (quote, word + sign)
        elif sign in "\"'":
            quote, started = sign, True
        elif sign == "#":
            break
        else:
            word, started = word + sign, True
    assert not quote, f"unmatched {quote} in {line}"
    return [*words, *[word] * started]


def options_of(script: str) -> dict[str, str]:
    """The options in a script, up to its first command; the last of equal ones counts."""
    found: dict[str, str] = {}
    for line in script.splitlines()[1:]:
        if line.startswith("#SBATCH"):
            for word in words_of(line.removeprefix("#SBATCH")):
                key, _, value = word.removeprefix("--").partition("=")
                found[key] = value
        elif line.strip() and not line.startswith("#"):
            break
    return found


def read(job: str) -> dict:
    try:
        return json.loads((HOME / f"{job}.json").read_text())
    except FileNotFoundError:
        sys.exit("slurm_load_jobs error: Invalid job id specified")


def change(job: str, **values: object) -> None:
    beside = HOME / f"{job}.new{os.getpid()}"
    beside.write_text(json.dumps({**read(job), **values}))
    beside.replace(HOME / f"{job}.json")


def sbatch(arguments: list[str]) -> None:
    if (HOME / "refuse").exists():
        sys.exit((HOME / "refuse").read_text())
    parsable, script = arguments
    assert parsable == "--parsable"
    job = str(len(list(HOME.glob("*.json"))) + 1)
    options = options_of(Path(script).read_text())
    (HOME / f"{job}.json").write_text(json.dumps({"state": "PENDING", "options": options, "pids": []}))
    runner = subprocess.Popen(
        [sys.executable, "-I", __file__, "slurmd", job, script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    change(job, pids=[runner.pid])
    print(job)


def slurmd(arguments: list[str]) -> None:
    """Runs a job when nothing holds it."""
    job, script = arguments
    while (HOME / "hold").exists():
        time.sleep(0.01)
    while not read(job)["pids"]:
        time.sleep(0.01)
    options = read(job)["options"]
    output = re.sub("%([%j])", lambda found: {"%": "%", "j": job}[found[1]], options["output"])
    with open(output, "ab") as log:
        running = subprocess.Popen(
            ["bash", script],
            cwd=options["chdir"],
            env={**os.environ, "SLURM_JOB_ID": job, "SLURM_JOB_NODELIST": "localhost"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    change(job, state="RUNNING", pids=[os.getpid(), running.pid])
    code = running.wait()
    change(job, state="FAILED" if code else "COMPLETED")


def squeue(arguments: list[str]) -> None:
    (job,) = (word.partition("=")[2] for word in arguments if word.startswith("--jobs="))
    state = read(job)["state"]
    if state == "COMPLETING":  # for as long as three looks
        looks = read(job).get("looks", 0) + 1
        change(job, looks=looks, state="CANCELLED" if looks == 3 else state)
    if state == "FORGOTTEN":
        sys.exit("slurm_load_jobs error: Invalid job id specified")
    print("PENDING|n/a|Priority" if state == "PENDING" else f"{state}|localhost|None")


def sacct(arguments: list[str]) -> None:
    print("CANCELLED by 1000")


def scancel(arguments: list[str]) -> None:
    (job,) = arguments
    for pid in read(job)["pids"]:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    change(job, state="COMPLETING")


def scontrol(arguments: list[str]) -> None:
    assert arguments[:2] == ["show", "hostnames"]
    print(*arguments[2].split(","), sep="\n")


def sinfo(arguments: list[str]) -> None:
    print("cpu", "gpu", sep="\n")


def srun(arguments: list[str]) -> None:
    """Runs its command once, here."""
    command = arguments[next(i for i, word in enumerate(arguments) if not word.startswith("-")) :]
    os.execvp(command[0], command)


def ray(arguments: list[str]) -> None:
    """Runs what `ray symmetric-run` would run on the head."""
    command = arguments[arguments.index("--") + 1 :]
    os.execvp(command[0], command)


def ssh(arguments: list[str]) -> None:
    """The way of `ssh -N -L`, without ssh."""
    if arguments[-1] != "localhost":
        sys.exit(f"ssh: Could not resolve hostname {arguments[-1]}: Name or service not known")
    _, here, there, port = arguments[arguments.index("-L") + 1].split(":")
    with socket.create_server(("127.0.0.1", int(here))) as server:
        while True:
            near, _ = server.accept()
            with near, socket.create_connection((there, int(port))) as far:
                while True:
                    ready = select.select([near, far], [], [])[0]
                    data = ready[0].recv(65536)
                    if not data:
                        break
                    (far if ready[0] is near else near).sendall(data)


if __name__ == "__main__":
    program, *rest = sys.argv[1:]
    if program != "slurmd":  # which is no command of the user's
        with open(HOME / "calls", "a") as calls:
            calls.write(json.dumps([program, *rest]) + "\n")
    if program in OF_SLURM and (HOME / "away").exists():
        sys.exit((HOME / "away").read_text())
    globals()[program](rest)
