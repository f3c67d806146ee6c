"""Clouds: the launcher's file against Ray's own checks, and what it starts on a head."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cloud_cluster import CLOUDS, cluster, provider_of
from ray.autoscaler._private import command_runner, util

from dlsys.cluster.places import ClusterPaths
from dlsys.spec.cluster.providers import Cloud
from dlsys.spec.load import check_cluster, load_cluster
from dlsys.spec.yaml import read


def launched(found: Cloud) -> dict[str, Any]:
    """The launcher's file as Ray reads it."""
    return yaml.safe_load(provider_of(found).render()["ray.yaml"])


def configs(found: Cloud) -> dict[str, Any]:
    return {name: one["node_config"] for name, one in launched(found)["available_node_types"].items()}


@pytest.mark.parametrize("image", ["given", None])
@pytest.mark.parametrize("provider", CLOUDS)
def test_ray_takes_the_file(provider: str, image: str | None) -> None:
    changes = {} if image else {"image": None}
    prepared = util.prepare_config(launched(cluster(provider, **changes)))
    util.validate_config(prepared)
    assert prepared["max_workers"] == 6
    limits = {
        name: (one["min_workers"], one["max_workers"])
        for name, one in prepared["available_node_types"].items()
    }
    assert limits == {"head": (0, 0), "gpu": (1, 4), "cpu": (2, 2)}
    assert prepared["head_node_type"] == "head"
    assert prepared["head_start_ray_commands"] == launched(cluster(provider))["head_start_ray_commands"]
    assert prepared["head_setup_commands"][0] == "pip install dlsys"
    assert len(prepared["head_setup_commands"]) > 1, "Ray's own, for the cloud's modules"


def test_rays_check_can_fail() -> None:
    wrong = launched(cluster())
    wrong["available_node_types"]["gpu"]["resources"]["CPU"] = 0.5
    with pytest.raises(Exception, match=r"0\.5 is not of type 'integer'"):
        util.validate_config(util.prepare_config(wrong))


def test_the_ready_file_is_taken(root: Path) -> None:
    found = load_cluster(root / "cluster" / "aws.yaml").cluster
    assert isinstance(found, Cloud)
    util.validate_config(util.prepare_config(launched(found)))


@pytest.mark.parametrize("provider", CLOUDS)
def test_groups_are_as_the_file_says(provider: str) -> None:
    types = launched(cluster(provider))["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["gpu"]["resources"] == {"CPU": 8, "GPU": 2}
    assert {name: one["labels"]["dlsys/group"] for name, one in types.items()} == {n: n for n in types}


def test_aws() -> None:
    found = cluster("aws", zone="us-west-2a")
    assert launched(found)["provider"] == {
        "type": "aws",
        "region": "us-west-2",
        "availability_zone": "us-west-2a",
        "cache_stopped_nodes": False,
    }
    assert configs(found)["cpu"] == {"InstanceType": "medium", "ImageId": "ami-1"}
    gpu = configs(found)["gpu"]
    assert gpu["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert gpu["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 200


def test_gcp() -> None:
    found = cluster("gcp")
    assert launched(found)["provider"] == {
        "type": "gcp",
        "region": "us-central1",
        "availability_zone": "us-central1-a",
        "project_id": "p-1",
        "cache_stopped_nodes": False,
    }
    nodes = configs(found)
    assert nodes["cpu"]["machineType"] == "medium"
    assert "scheduling" not in nodes["cpu"]
    assert nodes["gpu"]["scheduling"]["provisioningModel"] == "SPOT"
    disk = nodes["gpu"]["disks"][0]["initializeParams"]
    assert (disk["diskSizeGb"], disk["sourceImage"]) == (200, "projects/x/y")


@pytest.mark.parametrize(
    ("machine", "moves"), [("n2-standard-4", True), ("a2-highgpu-1g", False), ("g2-standard-4", False)]
)
def test_googles_machines_with_gpus_cannot_be_moved(machine: str, moves: bool) -> None:
    node = configs(cluster("gcp", nodes=[{"name": "head", "machine": machine}]))["head"]
    assert (node.get("scheduling") != {"onHostMaintenance": "TERMINATE"}) is moves


def test_azure() -> None:
    found = cluster("azure", zone="2")
    assert launched(found)["provider"] == {
        "type": "azure",
        "location": "westeurope",
        "resource_group": "group",
        "availability_zone": "2",
        "cache_stopped_nodes": False,
    }
    gpu = configs(found)["gpu"]["azure_arm_parameters"]
    assert (gpu["vmSize"], gpu["priority"], gpu["osDiskSize"]) == ("large", "Spot", 200)
    assert (gpu["imagePublisher"], gpu["imageVersion"]) == ("Canonical", "latest")
    own = configs(cluster("azure", image="/subscriptions/x/images/y"))["cpu"]["azure_arm_parameters"]
    assert own == {"vmSize": "medium", "imageId": "/subscriptions/x/images/y"}


@pytest.mark.parametrize("provider", CLOUDS)
def test_the_token_travels_as_a_file(provider: str) -> None:
    paths = ClusterPaths.of("cloudy")
    paths.make()
    files = provider_of(cluster(provider)).render()
    assert not any(paths.read_token() in text for text in files.values())
    mounts = yaml.safe_load(files["ray.yaml"])["file_mounts"]
    assert mounts["~/.dlsys/clusters/cloudy/token"] == str(paths.token)
    assert paths.token.stat().st_mode & 0o777 == 0o600, "rsync keeps it"
    loaded = check_cluster(read(files["cluster.yaml"], "cluster.yaml"))
    assert loaded == cluster(provider)


def starts(found: Cloud) -> list[str]:
    made = launched(found)
    return [*made["head_start_ray_commands"], *made["worker_start_ray_commands"]]


def test_ray_is_started_with_the_token_and_a_dashboard_on_loopback() -> None:
    head, worker = (one for one in starts(cluster()) if "ray start" in one)
    for command in (head, worker):
        assert "RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=" in command
        assert "RAY_USAGE_STATS_ENABLED=0" in command
    assert "--head" in head
    assert "--dashboard-host=127.0.0.1" in head
    assert "$RAY_HEAD_IP" in worker


def test_the_old_queue_is_ended_by_a_pattern_that_spares_its_own_shell() -> None:
    end, *_, start = launched(cluster())["head_start_ray_commands"]
    (pattern,) = re.findall(r"-f '([^']+)'", end)
    assert re.search(pattern, start)
    assert not re.search(pattern, end)


STRANGE = '/{0}/it\'s a "$(touch {0}/pwned)" `touch {0}/pwned` ; $HOME \\'


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a head: a home, and a `python` that ends at once, and in the end for good."""
    programs, home = tmp_path / "bin", tmp_path / "home"
    (home / ".dlsys" / "clusters" / "cloudy").mkdir(parents=True)
    (home / ".dlsys" / "clusters" / "cloudy" / "cluster.yaml").write_text("kind: cluster\n")
    programs.mkdir()
    # It notes its arguments and what is set, and ends the loop around it when it is started again.
    note = f'{shlex.quote(sys.executable)} -IS -c {shlex.quote(NOTE)} {shlex.quote(str(tmp_path))} "$@"'
    (programs / "python").write_text(
        f"#!/bin/sh\necho $PPID >>{shlex.quote(str(tmp_path))}/loop\nexec {note}\n"
    )
    (programs / "python").chmod(0o755)
    # Here a login shell looks for programs after `setup`.
    (home / ".bashrc").write_text(f"export PATH={shlex.quote(str(programs))}:$PATH\n")
    yield {"PATH": os.environ["PATH"], "HOME": str(home)}
    if (tmp_path / "loop").exists():
        for pid in {int(line) for line in (tmp_path / "loop").read_text().split()}:
            subprocess.run(["kill", str(pid)], stderr=subprocess.DEVNULL, check=False)


TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
NOTE = """
import json, os, sys
with open(sys.argv[1] + "/calls", "a") as calls:
    print(json.dumps([sys.argv[2:], dict(os.environ)]), file=calls)
print("a word for the log")
if len(open(sys.argv[1] + "/calls").readlines()) > 1:
    os.kill(os.getppid(), 15)
"""


@pytest.mark.parametrize("strange", [True, False], ids=["strange folder", "object store"])
def test_the_queue_is_started_and_started_again(
    machine: dict[str, str], tmp_path: Path, strange: bool
) -> None:
    storage = STRANGE.format(str(tmp_path).lstrip("/")) if strange else "s3://bucket/runs"
    commands = launched(cluster(storage=storage))["head_start_ray_commands"]
    home = storage if strange else f"{machine['HOME']}/.dlsys"
    for command in commands[3:]:
        # As ssh runs what Ray hands it: on a terminal, which is gone afterwards.
        shell = ["sh", "-c", " ".join(command_runner._with_interactive(command))]
        on_terminal = [sys.executable, "-IS", "-c", TERMINAL, *shell]
        subprocess.run(on_terminal, env=machine, stdin=subprocess.DEVNULL, check=True, timeout=60)
    calls = tmp_path / "calls"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not calls.exists() or len(calls.read_text().splitlines()) < 2):
        time.sleep(0.1)
    first, second = (json.loads(line) for line in calls.read_text().splitlines())
    for arguments, env in (first, second):
        assert arguments == ["-m", "dlsys.jobs.desk", f"{home}/clusters/cloudy"]
        assert env["RAY_ADDRESS"] == "127.0.0.1:6379"
        assert env["DLSYS_HOME"] == home
        assert env["RAY_AUTH_TOKEN_PATH"] == f"{machine['HOME']}/.dlsys/clusters/cloudy/token"
    folder = Path(home, "clusters", "cloudy")
    assert (folder / "cluster.yaml").read_text() == "kind: cluster\n"
    assert "a word for the log" in (folder / "desk.log").read_text()
    assert not list(tmp_path.glob("**/pwned"))


@pytest.mark.parametrize("key", ["region", "image", "user", "storage"])
def test_a_text_with_a_line_break_does_not_get_here(key: str) -> None:
    with pytest.raises(Exception, match=r"line break or another control character|must be text such as"):
        cluster(**{key: "/x\ny"})
