"""Clouds: the launcher's file against Ray's own checks, and the driving of a `ray` that is not real."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private import command_runner, util

from dlsys.cluster import cloud
from dlsys.cluster.cloud import CloudProvider
from dlsys.cluster.places import ClusterPaths
from dlsys.errors import RunError, UsageError
from dlsys.spec.cluster.providers import Cloud
from dlsys.spec.load import check_cluster, load_cluster
from dlsys.spec.yaml import read

NODES = [
    {"name": "head", "machine": "small", "cpus": 0},
    {
        "name": "gpu",
        "machine": "large",
        "cpus": 8,
        "gpus": 2,
        "count": 1,
        "max": 4,
        "spot": True,
        "disk": 200,
    },
    {"name": "cpu", "machine": "medium", "cpus": 4, "count": 2},
]
COMMON = {"kind": "cluster", "name": "cloudy", "storage": "/mnt/runs", "nodes": NODES}
CLOUDS: dict[str, dict[str, Any]] = {
    "aws": {"region": "us-west-2", "image": "ami-1"},
    "gcp": {"region": "us-central1", "zone": "us-central1-a", "project": "p-1", "image": "projects/x/y"},
    "azure": {
        "region": "westeurope",
        "project": "group",
        "image": "Canonical:ubuntu-24_04-lts:server:latest",
    },
}


def cluster(provider: str = "aws", **changes: Any) -> Cloud:
    data = {**COMMON, **CLOUDS[provider], "provider": provider, **changes}
    found = check_cluster(read(yaml.safe_dump(data), "cluster.yaml"))
    assert isinstance(found, Cloud)
    return found


def provider_of(found: Cloud) -> CloudProvider:
    return CloudProvider(found, ClusterPaths.of(found.name))


def launched(found: Cloud) -> dict[str, Any]:
    """The launcher's file as Ray reads it."""
    return yaml.safe_load(provider_of(found).render()["ray.yaml"])


def configs(found: Cloud) -> dict[str, Any]:
    return {name: one["node_config"] for name, one in launched(found)["available_node_types"].items()}


# The file


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


# The driving

RAY = """
import json, os, sys, time
box = os.environ["FAKE_RAY"]
with open(box + "/calls", "a") as calls:
    calls.write(json.dumps([sys.argv[1:], os.environ.get("RAY_USAGE_STATS_ENABLED")]) + "\\n")
verb = sys.argv[1]
if verb == "get-head-ip":
    if not os.path.exists(box + "/up"):
        sys.exit(open(box + "/absent").read() if os.path.exists(box + "/absent") else
                 "RuntimeError: Head node of cluster (cloudy) not found!")
    print("2026-01-01 INFO a word that is no address\\n127.0.0.1")
if os.path.exists(box + "/broken"):
    print("\\x1b[36m<1/1> Setting up head node\\x1b[0m\\n  [2/7] Processing file mounts\\nno capacity left")
    sys.exit(1)
if verb == "up":
    print("  [7/7] Starting the Ray runtime")
    open(box + "/up", "w").close()
if verb == "down":
    os.unlink(box + "/up")
"""
SSH = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
box = os.environ["FAKE_RAY"]
open(box + "/ssh", "w").write(json.dumps(sys.argv[1:]))
if os.path.exists(box + "/locked"):
    sys.exit("Permission denied (publickey).")
class Desk(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_): ...
port = int(sys.argv[sys.argv.index("-L") + 1].split(":")[1])
HTTPServer(("127.0.0.1", port), Desk).serve_forever()
"""


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder beside which `ray` and `ssh` are found first."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in (("ray", RAY), ("ssh", SSH)):
        (programs / name).write_text(f"#!{sys.executable} -IS\n{text}")
        (programs / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setenv("FAKE_RAY", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "ray-autoscaler_us-west-2.pem").touch()
    return tmp_path


def calls(box: Path, verb: str) -> list[list[str]]:
    found = (json.loads(line) for line in (box / "calls").read_text().splitlines())
    return [arguments for arguments, _ in found if arguments[0] == verb]


def quiet(line: str) -> None:
    pass


def test_up_launches_and_waits_for_the_queue(box: Path) -> None:
    said: list[str] = []
    provider = provider_of(cluster())
    assert not provider.alive()
    provider.up(said.append)
    assert provider.alive()
    paths = ClusterPaths.of("cloudy")
    (call,) = calls(box, "up")
    assert call == ["up", "-y", "--no-config-cache", str(paths.launch / "ray.yaml")]
    assert (paths.launch / "ray.yaml").read_text() == provider.render()["ray.yaml"]
    assert "[7/7] Starting the Ray runtime" in said
    assert "Starting the Ray runtime" in (paths.logs / "up.log").read_text()
    usage = [json.loads(line)[1] for line in (box / "calls").read_text().splitlines() if '"up"' in line]
    assert usage == ["0"]


def test_another_up_does_not_restart_ray(box: Path) -> None:
    provider = provider_of(cluster())
    provider.up(quiet)
    provider.up(quiet)
    assert ["--no-restart" in call for call in calls(box, "up")] == [False, True]


def test_a_strangers_cluster_is_left_alone(box: Path) -> None:
    (box / "up").touch()
    for _ in range(2):
        with pytest.raises(UsageError, match="'cloudy' is up in us-west-2, and was not brought up from here"):
            provider_of(cluster()).up(quiet)
    assert not calls(box, "up")


def test_nothing_is_launched_when_the_cloud_cannot_be_asked(box: Path) -> None:
    (box / "absent").write_text("NoCredentialsError: Unable to locate credentials")
    with pytest.raises(RunError, match="Unable to locate credentials"):
        provider_of(cluster()).up(quiet)
    assert not calls(box, "up")


def test_a_failed_up_shows_its_last_lines_and_its_log(box: Path) -> None:
    (box / "broken").touch()
    said: list[str] = []
    with pytest.raises(RunError, match=r"(?s)ray up: .*no capacity left") as caught:
        provider_of(cluster()).up(said.append)
    assert "up.log" in caught.value.hint
    assert "[2/7] Processing file mounts" in said
    (box / "broken").unlink()
    provider_of(cluster()).up(quiet)
    assert "--no-restart" not in calls(box, "up")[-1], "no head is up yet"


def test_down_takes_it_away_and_may_be_called_again(box: Path) -> None:
    said: list[str] = []
    provider = provider_of(cluster())
    provider.up(quiet)
    provider.down(quiet)
    assert [call[:2] for call in calls(box, "down")] == [["down", "-y"]]
    provider.down(said.append)
    assert said == ["nothing of cluster cloudy was made from here"]
    assert not provider.alive()
    with pytest.raises(RunError, match="is not up"), provider.connect():
        pass


def test_connect_is_a_tunnel_with_rays_key_that_ends_with_the_context(box: Path) -> None:
    provider = provider_of(cluster())
    provider.up(quiet)
    with provider.connect() as endpoint:
        assert endpoint.token == ClusterPaths.of("cloudy").read_token()
        assert urllib.request.urlopen(endpoint.url, timeout=10).status == 200
        arguments = json.loads((box / "ssh").read_text())
    port = endpoint.url.rpartition(":")[2]
    assert arguments[-4:] == ["-L", f"127.0.0.1:{port}:127.0.0.1:8266", "--", "127.0.0.1"]
    assert arguments[arguments.index("-i") + 1] == str(box / ".ssh" / "ray-autoscaler_us-west-2.pem")
    assert arguments[arguments.index("-l") + 1] == "ubuntu"
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(endpoint.url, timeout=10)


def test_a_head_that_lets_nobody_in(box: Path) -> None:
    provider = provider_of(cluster())
    provider.up(quiet)
    (box / "locked").touch()
    with pytest.raises(RunError, match=r"ssh .*Permission denied"), provider.connect():
        pass


def test_rays_keys_are_found_by_the_names_that_ray_gives_them(box: Path) -> None:
    """By Ray's own functions, so that a Ray that names them otherwise is noticed."""
    source = Path(util.__file__).with_name("aws").joinpath("config.py").read_text()
    wanted = ("key_pair", "RAY")
    kept = [
        node
        for node in ast.parse(source).body
        if getattr(node, "name", None) == "key_pair"
        or (isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) in wanted)
    ]
    names: dict[str, Any] = {"os": os}
    exec(compile(ast.Module(kept, []), "aws", "exec"), names)
    expected = [Path(names["key_pair"](index, "us-west-2", None)[1]) for index in range(2)]
    gcp = util.generate_ssh_key_paths(util.generate_ssh_key_name("gcp", 0, "us-central1", "p-1", "ubuntu"))
    azure = util.generate_ssh_key_paths(
        util.generate_ssh_key_name("azure", None, "westeurope", "group", "ubuntu")
    )
    for path in (*map(str, expected), *gcp, *azure, str(box / ".ssh" / "ray-autoscaler_eu-west-2.pem")):
        Path(path).touch()
    assert cloud._keys(cluster("aws")) == expected
    assert cloud._keys(cluster("gcp")) == [Path(gcp[1])]
    assert cloud._keys(cluster("azure")) == [Path(azure[1])]


BOTO3 = "class Session:\n    def get_credentials(self):\n        return {}\n"


@pytest.mark.parametrize(
    ("module", "changes", "what", "mend"),
    [
        (None, {}, "Ray needs boto3 for aws", "pip install boto3"),
        (BOTO3.format("None"), {}, "no credentials", "aws configure"),
        (BOTO3.format("'some'"), {"image": None}, "Python 3.10", "Name an image"),
        (BOTO3.format("'some'"), {}, None, ""),
    ],
    ids=["modules", "credentials", "image", "all is well"],
)
def test_the_doctor(
    box: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str | None,
    changes: dict[str, Any],
    what: str | None,
    mend: str,
) -> None:
    modules = box / "modules"
    modules.mkdir()
    if module is None:
        monkeypatch.setitem(sys.modules, "boto3", None)  # as if it was not installed
    else:
        monkeypatch.delitem(sys.modules, "boto3", raising=False)
        (modules / "boto3.py").write_text(module)
    monkeypatch.syspath_prepend(modules)
    rsync = box / "programs" / "rsync"
    rsync.touch(mode=0o755)
    bad = [found for found in provider_of(cluster(**changes)).doctor() if not found.good]
    assert [what in found.what and mend in found.mend for found in bad] == [True] * (what is not None)


@pytest.mark.parametrize("provider", ["gcp", "azure"])
def test_the_doctor_looks_for_the_modules_of_each_cloud(box: Path, provider: str) -> None:
    first = next(iter(provider_of(cluster(provider)).doctor()))
    assert not first.good
    assert first.mend.startswith("pip install ")


def test_the_doctor_asks_the_queue(box: Path) -> None:
    provider = provider_of(cluster())
    provider.up(quiet)
    assert list(provider.doctor())[-1].what == "the queue of jobs answers"
    (box / "locked").touch()
    assert "the head cannot be reached" in list(provider.doctor())[-1].what
