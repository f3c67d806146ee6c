"""Clouds: the driving of a `ray` that is not real."""

from __future__ import annotations

import ast
import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from cloud_cluster import cluster, provider_of
from ray.autoscaler._private import util

from dlsys.cluster import cloud
from dlsys.cluster.places import ClusterPaths
from dlsys.errors import RunError, UsageError

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
