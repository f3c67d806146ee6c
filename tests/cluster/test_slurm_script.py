"""Clusters in Slurm: the batch job as bash, sbatch and Ray read it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from fake_slurm import options_of
from slurm_cluster import NASTY, FakeSlurm, cluster_of, provider_of

from dlsys.cluster import slurm_script
from dlsys.spec import load_cluster
from dlsys.spec.cluster.providers import Slurm

ROOT = Path(__file__).parents[2]


def bash_takes(text: str) -> None:
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


class TestScript:
    def test_the_ready_file(self) -> None:
        cluster = load_cluster(ROOT / "cluster" / "slurm.yaml").cluster
        assert isinstance(cluster, Slurm)
        ((name, text),) = provider_of(cluster).render().items()
        assert name == "slurm.sbatch"
        bash_takes(text)
        assert options_of(text) == {
            "job-name": "dlsys-slurm",
            "nodes": "4",
            "ntasks-per-node": "1",
            "cpus-per-task": "32",
            "gpus-per-node": "8",
            "mem": "256G",
            "time": "8:00:00",
            "partition": "gpu",
            "chdir": "/shared/dlsys/clusters/slurm",
            "output": "/shared/dlsys/clusters/slurm/logs/%j.log",
            "open-mode": "append",
            "exclusive": "",
        }
        _, setup = text.split("umask 077\n")
        assert setup.startswith("source /shared/venv/bin/activate\n"), "before anything needs it"
        assert "--min-nodes 4" in text
        assert "--num-cpus=32 --num-gpus=8 --labels=dlsys/group=gpu -- python3 -P -m dlsys.jobs.desk" in text

    def test_what_is_not_asked_for_is_left_to_slurm(self) -> None:
        text = slurm_script.script(cluster_of(storage="/x"), Path("/x/clusters/lab"))
        assert not {"gpus-per-node", "mem", "partition", "account"} & options_of(text).keys()
        assert "--num-gpus=0" in text, "Ray would count for itself"

    def test_options_outrank_the_other_keys(self) -> None:
        cluster = cluster_of(storage="/x", partition="cpu", options=["--partition=gpu", "--constraint=a100"])
        options = options_of(slurm_script.script(cluster, Path("/x")))
        assert (options["partition"], options["constraint"]) == ("gpu", "a100")

    def test_nothing_leaves_its_place(self) -> None:
        folder = Path(f"/mnt/{NASTY}/clusters/lab")
        cluster = cluster_of(storage=f"/mnt/{NASTY}", partition=NASTY, account=NASTY)
        text = slurm_script.script(cluster, folder)
        bash_takes(text)
        options = options_of(text)
        assert (options["partition"], options["account"]) == (NASTY, NASTY)
        assert options["chdir"] == str(folder)
        assert options["output"] == str(folder).replace("%", "%%") + "/logs/%j.log"
        assert len(options) == 10, "no value became another option"


def test_a_requeued_job_forgets_the_address_of_the_queue(
    fake: FakeSlurm, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_script, "DESK", ("test", "!", "-e", str(storage / "desk.json")))
    storage.mkdir()
    (storage / "desk.json").write_text("{}")
    text = slurm_script.script(cluster_of(storage=str(storage)), storage).removesuffix(' "$folder"\n')
    env = {**os.environ, "SLURM_JOB_NODELIST": "n1,n2"}
    assert subprocess.run(["bash", "-c", text], env=env, check=False).returncode == 0
    ((*_, address, _, _, _, _, _, _, _, _, _, _),) = fake.calls("ray")
    assert address == "n1:6379", "the first node is the head"


PROOF = """
import json, os, sys
import ray

ray.init(address="auto", log_to_driver=False)
(node,) = ray.nodes()
one = ray.get(ray.remote(lambda: 1).remote())
found = {"node": node, "one": one, "mode": os.environ["RAY_AUTH_MODE"]}
open(os.path.join(sys.argv[1], "found.json"), "w").write(json.dumps(found, default=str))
"""


@pytest.mark.ray
@pytest.mark.slow
def test_ray_itself_takes_the_job(
    tmp_path: Path, storage: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Processes and ports of its own: `ray symmetric-run` refuses where another Ray runs, and ends with
    # `ray stop`, which would take that one too.
    alone = [
        "unshare",
        "--user",
        "--map-root-user",
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]
    if subprocess.run([*alone, "ip", "link", "set", "lo", "up"], capture_output=True, check=False).returncode:
        pytest.skip("no namespaces here")
    (fake.bin / "ray").unlink()
    monkeypatch.setenv(
        "PATH", f"{fake.bin}:{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
    )
    (tmp_path / "proof.py").write_text(PROOF)
    monkeypatch.setattr(slurm_script, "DESK", (sys.executable, str(tmp_path / "proof.py")))
    storage.mkdir()
    (storage / "token").write_text("0" * 64)
    (storage / "job").write_text(slurm_script.script(cluster_of(storage=str(storage)), storage))
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as temp:  # short, for sockets' paths
        done = subprocess.run(
            [*alone, "sh", "-c", 'ip link set lo up; exec bash "$0"', str(storage / "job")],
            env={**os.environ, "SLURM_JOB_NODELIST": "127.0.0.1", "RAY_TMPDIR": temp},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((storage / "found.json").read_text())
    assert (found["one"], found["mode"]) == (1, "token")
    assert found["node"]["Resources"]["CPU"] == 2
    assert found["node"]["Labels"]["dlsys/group"] == "gpu"
