"""Checking a file needs neither the machine that runs it nor the libraries that do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HEAVY = ["torch", "ray", "mlflow", "numpy", "deepspeed", "sklearn", "pandas"]

JOB = """\
kind: train
name: pure
workload: lenet-5
data: {source: digits}
batch_size: 6400
resources: {workers: 64, cpus: 4000, gpus: 64}
stop: {epochs: 1}
tracking: {uri: "http://no.such.host:1"}
"""

SWEEP = """\
kind: sweep
name: pure
job: job.yaml
metric: valid/accuracy
space: {optimizer: {choice: [{name: sgd}, {name: adam}]}, model.dropout: {uniform: [0, 0.5]}}
searcher: {name: gp}
trials: 20
"""


CLUSTER = """\
kind: cluster
name: pure
provider: aws
region: no-such-region
storage: s3://no-such-bucket/x
nodes: [{name: head, machine: none}, {name: gpu, machine: none, count: 1000}]
"""


def files(folder: Path) -> list[str]:
    (folder / "job.yaml").write_text(JOB)
    (folder / "sweep.yaml").write_text(SWEEP)
    (folder / "cluster.yaml").write_text(CLUSTER)
    return [str(folder / name) for name in ("job.yaml", "sweep.yaml", "cluster.yaml")]


def python(code: str, *arguments: str, cwd: Path) -> str:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


LOAD = f"""
import sys, json
import dlsys.spec
from dlsys.spec import load, load_any, schema
job = load(sys.argv[1]).job
load_any(sys.argv[2])
load_any(sys.argv[3])
schema.schema()
schema.sweep_schema()
schema.cluster_schema()
heavy = [name for name in {HEAVY!r} if name in sys.modules]
print(json.dumps([heavy, job.model_dump(mode="json")]))
"""


def test_loading_imports_nothing_heavy(tmp_path: Path) -> None:
    heavy, job = json.loads(python(LOAD, *files(tmp_path), cwd=tmp_path))
    assert heavy == []
    assert job["resources"]["gpus"] == 64


def test_a_file_means_the_same_where_nothing_heavy_is_installed(tmp_path: Path) -> None:
    without = f"""
import sys
for name in {HEAVY!r}:
    sys.modules[name] = None  # any import of it fails
{LOAD}"""
    _, here = json.loads(python(LOAD, *files(tmp_path), cwd=tmp_path))
    _, there = json.loads(
        python(without.replace("in sys.modules]", "in ()]"), *files(tmp_path), cwd=tmp_path)
    )
    assert here == there
