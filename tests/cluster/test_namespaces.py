"""A cluster of three hosts, for real: network namespaces on one bridge, and an `ssh` that enters them.

Files and processes are the machine's own, so the hosts see one storage; the networks are separate: a
host that is cut off is out of reach for Ray, gloo and ssh alike.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from runner import MODULE, Folder

from dlsys.track.store import Store

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]

HOSTS = {"h1": "10.77.0.1", "h2": "10.77.0.2", "h3": "10.77.0.3"}
HUB = "dlsys-hub"
CLUSTER = """
kind: cluster
name: lab
provider: ssh
python: {python}
storage: {storage}
nodes:
  - {{name: head, hosts: [h1], cpus: 1}}
  - {{name: gpu, hosts: [{others}], cpus: 1}}
"""
# Every rank says on which node it is.
TELLS = """
        import ray
        print("node", ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address(), flush=True)
        """


# The first process of a host: what it is told to, and then nothing, but the burial of orphans.
INIT = """
import signal, socket, subprocess, sys
socket.sethostname(sys.argv[1])
subprocess.run(["mount", "--bind", sys.argv[2], "/etc/hosts"], check=True)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print("ready", flush=True)
while True:
    signal.pause()
"""


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def begin(host: str, folder: Path) -> subprocess.Popen[str]:
    """Starts a host: its network is there, its processes and its name are its own."""
    names = folder / f"{host}.hosts"
    # As Debian has it: a host's own name means a loopback.
    names.write_text(f"127.0.0.1 localhost\n127.0.1.1 {host}\n")
    own = ("unshare", "--pid", "--uts", "--mount", "--fork", "--kill-child", "--mount-proc")
    init = (sys.executable, "-IS", "-c", INIT, host, str(names))
    began = subprocess.Popen(["ip", "netns", "exec", host, *own, *init], stdout=subprocess.PIPE, text=True)
    assert began.stdout is not None
    assert began.stdout.readline() == "ready\n"
    (first,) = psutil.Process(began.pid).children()
    (folder / f"{host}.pid").write_text(str(first.pid))
    return began


def pids(host: str) -> list[int]:
    """A host's processes, but for the first."""
    found = map(psutil.Process, map(int, ip("netns", "pids", host).split()))
    return [each.pid for each in found if INIT not in each.cmdline()]


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Path]:
    """Hosts h1, h2 and h3 at 10.77.0.1 to 3, on a bridge in a namespace of its own.

    Returns:
        The folder of `fake_ssh.py`.
    """
    folder = tmp_path / "ssh"
    folder.mkdir()
    began: dict[str, subprocess.Popen[str]] = {}
    if os.geteuid() or subprocess.run(["ip", "netns", "add", HUB], capture_output=True).returncode:
        pytest.skip("`ip netns` is not allowed here")
    try:
        ip("-n", HUB, "link", "add", "name", "bridge0", "type", "bridge")
        ip("-n", HUB, "link", "set", "bridge0", "up")
        for host, address in HOSTS.items():
            ip("netns", "add", host)
            made = ("link", "add", "name", host, "type", "veth", "peer", "name", "eth0", "netns", host)
            ip("-n", HUB, *made)
            ip("-n", HUB, "link", "set", host, "master", "bridge0", "up")
            ip("-n", host, "link", "set", "lo", "up")
            ip("-n", host, "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", host, "link", "set", "eth0", "up")
            # Ray asks for the way to the world, to learn its own address; there is no world.
            ip("-n", host, "route", "add", "default", "via", "10.77.0.254")
            for nowhere in ("169.254.0.0/16", *nameservers()):
                ip("-n", host, "route", "add", "unreachable", nowhere)
            began[host] = begin(host, folder)
        yield folder
    finally:
        for process in began.values():
            process.kill()  # and with it, all that the host has
            process.wait()
            process.stdout.close()
        there = [line.split()[0] for line in ip("netns", "list").splitlines() if line]
        for name in {*HOSTS, HUB} & set(there):
            ip("netns", "delete", name)


def nameservers() -> list[str]:
    return re.findall(r"^nameserver\s+([\d.]+)$", Path("/etc/resolv.conf").read_text(), re.MULTILINE)


class Lab:
    """The user's folder on the machine that the cluster is used from."""

    def __init__(self, path: Path, ssh: Path) -> None:
        self.ssh = ssh
        self.storage = path / "shared"
        self.storage.mkdir()
        program = path / "bin" / "ssh"
        program.parent.mkdir()
        fake = Path(__file__).with_name("fake_ssh.py")
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -I {fake} "$@"\n')
        program.chmod(0o755)
        self.folder = Folder(path / "user")
        self.folder.environment |= {
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "FAKE_SSH": str(self.ssh),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        }
        source = MODULE.replace("    def build(self):\n", f"    def build(self):{TELLS}\n")
        (self.folder.path / "mine.py").write_text(source)

    def dlsys(self, *arguments: str, code: int = 0) -> Any:
        done = self.folder.dlsys(*arguments, timeout=300)
        assert done.code == code, done.err
        return done

    def up(self, *others: str, **changes: str) -> Any:
        text = CLUSTER.format(
            python=sys.executable, storage=changes.get("storage", self.storage), others=", ".join(others)
        )
        (self.folder.path / "lab.yaml").write_text(text)
        return self.dlsys("cluster", "up", "lab.yaml", code=int(changes.get("code", 0)))

    def nodes(self) -> dict[str, str]:
        """The living nodes' addresses, by name."""
        found = json.loads(self.dlsys("cluster", "status", "--json").out)["nodes"]
        return {node["name"]: node["host"] for node in found if node["alive"]}

    def raylets(self) -> dict[str, int]:
        """The raylets' process ids, by host, as the keepers say."""
        found: dict[str, int] = {}
        for path in (self.storage / "clusters" / "lab").glob("state-*.json"):
            nodes = json.loads(path.read_text())["nodes"]
            found |= {node["name"]: node["raylet"] for node in nodes if node["raylet"]}
        return found

    def log(self, job_id: str, name: str) -> str:
        path = self.storage / "runs" / job_id / "logs" / name
        return path.read_text() if path.exists() else ""

    def step(self, job_id: str) -> int:
        spool = self.storage / "runs" / job_id / "spool" / "rank-0.jsonl"
        lines = spool.read_text().splitlines() if spool.exists() else []
        return max((json.loads(line).get("s", 0) for line in lines if line.endswith("}")), default=0)


@pytest.fixture
def lab(hosts: Path, tmp_path: Path) -> Lab:
    (tmp_path / "user").mkdir()
    return Lab(tmp_path, hosts)


def until(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """How long it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, what
        time.sleep(0.2)
    return time.monotonic() - began


def test_a_cluster_over_networks_survives_a_cut(lab: Lab) -> None:
    assert re.findall(r"node (\w+) is up", lab.up("h2").err) == ["h1", "h2"]
    assert lab.nodes() == {"h1": HOSTS["h1"], "h2": HOSTS["h2"]}
    submitted = lab.dlsys(
        *("submit", "job.yaml", "resources.workers=2", "strategy.name=ddp", "-d"),
        *("--env", "STEP_SECONDS=0.3"),
    )
    job_id = submitted.out.strip()
    until(lambda: lab.step(job_id) > 8, 120, "the job does not begin")
    told = [lab.log(job_id, f"rank-{rank}.log") for rank in range(2)]
    at = [re.findall(r"node (\w+) ([\d.]+)", text)[0] for text in told]
    assert at[0][0] != at[1][0]
    assert {address for _, address in at} == {HOSTS["h1"], HOSTS["h2"]}

    before = set(pids("h2"))
    ip("-n", HUB, "link", "set", "h2", "down")
    (lab.ssh / "h2").touch()
    noticed = until(lambda: lab.nodes() == {"h1": HOSTS["h1"]}, 120, "Ray does not notice")
    cut = f"h2 is cut off at step {lab.step(job_id)}: noticed after {noticed:.0f} s"
    down = lab.folder.dlsys("cluster", "doctor")
    assert down.code == 1
    assert "BAD  h2: ssh: ssh: connect to host h2 port 22: No route to host" in down.out
    ip("-n", HUB, "link", "set", "h2", "up")
    (lab.ssh / "h2").unlink()
    back = until(lambda: lab.nodes().get("h2") == HOSTS["h2"], 120, "h2 does not come back")
    print(f"{cut}; a node again {back:.0f} s after it was back")
    assert not before & set(pids("h2")) - set(keepers()), "what was cut off goes on"

    assert lab.dlsys("jobs", "wait", job_id).out.strip() == "SUCCEEDED", lab.log(job_id, "driver.log")
    store = Store(f"sqlite:///{lab.storage}/mlflow.db")
    (run,) = store.runs()
    steps = Counter(point.step for point in store.client.get_metric_history(run.info.run_id, "train/loss"))
    assert steps == Counter(range(1, 70))

    assert re.findall(r"node (\w+) is up", lab.up("h2", "h3").err) == ["h1", "h2", "h3"]
    until(lambda: lab.nodes() == HOSTS, 60, "not all nodes are there")

    # A host that is away when the others go down; it ends by itself when the cluster's folder is gone.
    (lab.ssh / "h3").touch()
    assert "h3: ssh: ssh: connect to host h3" in lab.dlsys("cluster", "down", code=1).err
    until(lambda: not any(map(pids, HOSTS)), 60, "processes are left")
    (lab.ssh / "h3").unlink()
    lab.dlsys("cluster", "down", "lab")
    assert not (lab.storage / "clusters" / "lab").exists()
    assert not (lab.folder.path / ".dlsys" / "clusters" / "lab").exists()


def keepers() -> Iterator[int]:
    for host in HOSTS:
        for pid in pids(host):
            if "dlsys.cluster.keeper" in psutil.Process(pid).cmdline():
                yield pid


def test_what_is_wrong_is_told_and_what_dies_comes_back(lab: Lab) -> None:
    (lab.ssh / "h2.blind").symlink_to(lab.storage)
    words = f"storage: h2 does not see what the head h1 writes into {lab.storage}"
    assert words in lab.up("h2", code="2").err
    assert not any(map(pids, HOSTS)), "nothing was started"
    (lab.ssh / "h2.blind").unlink()

    (lab.ssh / "h3").touch()
    done = lab.up("h2", "h3", code="1")
    assert re.findall(r"node (\w+) is up", done.err) == ["h1", "h2"], "the others stay"
    assert "h3: ssh: ssh: connect to host h3 port 22: No route to host" in done.err
    token = (lab.storage / "clusters" / "lab" / "token").read_text()
    assert len(token) == 64
    assert token not in (lab.ssh / "calls").read_text()

    # The head's raylet dies: the whole cluster is another one now, and h2 joins it.
    before = lab.raylets()
    (raylet,) = (pid for pid in pids("h1") if psutil.Process(pid).name() == "raylet")
    psutil.Process(raylet).kill()
    until(lambda: "h1" not in lab.raylets() or lab.raylets()["h1"] != before["h1"], 60, "no new head")
    until(lambda: lab.raylets().get("h2") != before["h2"], 60, "h2 stays with the old head")
    until(lambda: set(lab.nodes()) == {"h1", "h2"}, 60, "the new head has not both")

    # The keepers die: another `up` starts them, and they find what runs.
    before = lab.raylets()
    for pid in list(keepers()):
        psutil.Process(pid).kill()
    (lab.ssh / "h3").unlink()
    lab.up("h2")
    assert lab.raylets() == before
    assert len(list(keepers())) == 2
    done = lab.dlsys("cluster", "doctor")
    assert "ok   h2: its keeper lives" in done.out
    lab.dlsys("cluster", "down")
    assert not any(map(pids, HOSTS))
