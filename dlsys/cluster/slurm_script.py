"""The batch job of a cluster in Slurm: sbatch's options, the user's set-up, Ray on every node."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from dlsys.spec.cluster.providers import Slurm

# The queue of jobs; the cluster's folder follows.
DESK = ("python3", "-P", "-m", "dlsys.jobs.desk")

# How long nodes of an allocation wait for each other; by default 30 s, and shared folders can be slow.
_NODES_WITHIN = 300


def script(cluster: Slurm, folder: Path) -> str:
    """The batch job.

    Args:
        cluster: what it is to be.
        folder: where all that takes part in the cluster meets; it holds the token.
    """
    (group,) = cluster.nodes
    nodes = [f"--nodes={group.count}", f"--ntasks={group.count}", "--ntasks-per-node=1"]
    ray = [f"--num-cpus={group.cpus}", f"--num-gpus={group.gpus}", f"--labels=dlsys/group={group.name}"]
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {option}" for option in _options(cluster, str(folder))),
        "",
        "umask 077",
        *cluster.setup,
        "",
        "set -euo pipefail",
        f"folder={shlex.quote(str(folder))}",
        "# Nothing of the shell that submitted this may name another cluster.",
        "unset RAY_ADDRESS RAY_AUTH_TOKEN",
        "export RAY_AUTH_MODE=token",
        'export RAY_AUTH_TOKEN_PATH="$folder/token"',
        "export RAY_USAGE_STATS_ENABLED=0",
        f"export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT={_NODES_WITHIN}",
        "# Where Slurm requeues the job, there is one of the time before.",
        'rm -f -- "$folder/desk.json"',
        'mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")',
        f"exec srun --export=ALL {shlex.join([*nodes, f'--cpus-per-task={group.cpus}'])} \\",
        f'  ray symmetric-run --address "${{hosts[0]}}:{cluster.port}" --min-nodes {group.count} \\',
        f'  {shlex.join(ray)} -- {shlex.join(DESK)} "$folder"',
    ]
    return "\n".join(lines) + "\n"


def _options(cluster: Slurm, folder: str) -> list[str]:
    (group,) = cluster.nodes
    wanted = {
        "job-name": f"dlsys-{cluster.name}",
        "nodes": group.count,
        "ntasks-per-node": 1,
        "cpus-per-task": group.cpus,
        "gpus-per-node": group.gpus or None,
        "mem": group.memory,
        "time": cluster.time,
        "partition": cluster.partition,
        "account": cluster.account,
        "chdir": folder,
        # In the name of a log, Slurm reads a % as more.
        "output": folder.replace("%", "%%") + "/logs/%j.log",
        "open-mode": "append",
    }
    options = [f"--{key}={_quoted(str(value))}" for key, value in wanted.items() if value is not None]
    return [*options, *cluster.options]


def _quoted(value: str) -> str:
    """A value as sbatch reads it from a script: by rules of its own, with a backslash in all quotes."""
    if re.fullmatch(r"[\w./:%+,@-]+", value, re.ASCII):
        return value
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'
