"""Clusters by ssh, without hosts: the command lines, what runs on a host, what the doctor says.

`test_namespaces.py` has the hosts.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from dlsys import __version__
from dlsys.cluster import host, ssh
from dlsys.cluster.places import ClusterPaths
from dlsys.cluster.ssh import SshProvider
from dlsys.errors import RunError, UsageError
from dlsys.spec import yaml
from dlsys.spec.cluster.providers import Ssh
from dlsys.spec.load import check_cluster

NASTY = "/mnt/a b'\"`touch pwned`$(touch pwned);touch pwned # \\ %j"


def provider_of(**changes: Any) -> SshProvider:
    nodes = [{"name": "head", "hosts": ["lab-1"]}, {"name": "gpu", "hosts": ["lab-2", "lab-3"]}]
    data = {
        "kind": "cluster",
        "name": "lab",
        "provider": "ssh",
        "storage": "/mnt/x",
        "nodes": nodes,
    } | changes
    found = check_cluster(yaml.read(yaml.dump(data), "cluster.yaml"))
    assert isinstance(found, Ssh)
    return SshProvider(found, ClusterPaths.of(found.name))


def test_a_command_reaches_the_host_as_it_was_meant() -> None:
    shown = provider_of(storage=NASTY, user="me", key="~/k", ssh_port=2222, python="/o p/python").render()
    words = shlex.split(shown["lab-3"])
    assert words[-2] == "lab-3"
    meant = ["/o p/python", "-P", "-m", "dlsys.cluster.host", "up", f"{NASTY}/clusters/lab", "lab-3"]
    assert shlex.split(words[-1]) == meant
    for option, value in (("-l", "me"), ("-p", "2222"), ("-i", os.path.expanduser("~/k"))):
        assert words[words.index(option) + 1] == value
    assert "BatchMode=yes" in words


def prepare(folder: Path, token: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "dlsys.cluster.host", "prepare", str(folder)]
    given = json.dumps({"token": token, "cluster": "kind: cluster\n"})
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=60)


def test_the_folder_is_the_owners_alone_and_of_one_cluster(tmp_path: Path) -> None:
    folder = tmp_path / "shared" / "clusters" / "lab"
    assert prepare(folder, "secret").returncode == 0
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "token").stat().st_mode & 0o777 == 0o600
    written = (folder / "cluster.yaml").stat().st_mtime_ns
    assert prepare(folder, "secret").returncode == 0
    assert (folder / "cluster.yaml").stat().st_mtime_ns == written, "keepers have it already"
    again = prepare(folder, "another")
    assert again.returncode == 1
    assert "a cluster of this name was brought up from elsewhere" in again.stderr
    assert "Traceback" not in again.stderr
    assert (folder / "token").read_text() == "secret"


def test_storage_that_is_not_there_yet_is_looked_for_where_it_is_to_be(tmp_path: Path) -> None:
    place = host.probe(str(tmp_path / "not" / "yet"), "name")
    assert place == str(tmp_path / "name")
    assert host.look(place)["sees"]
    host.clear(place)
    assert not host.look(place)["sees"]
    assert not (tmp_path / "not").exists()


def test_storage_that_cannot_be_written() -> None:
    with pytest.raises(UsageError, match="storage: /proc cannot be written") as caught:
        host.probe("/proc/nowhere", "name")
    assert "Make /proc/nowhere" in caught.value.hint


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """What the hosts say of themselves; a host without an answer cannot be reached."""
    good = {"sees": True, "dlsys": __version__, "ray": version("ray"), "free": 1e11}
    found: dict[str, dict[str, Any]] = {name: dict(good) for name in ("lab-1", "lab-2", "lab-3")}

    def run(command: Sequence[str], **more: Any) -> str:
        name, line = command[-2:]
        if name not in found:
            raise RunError("ssh: No route to host")
        if shlex.split(line)[4] != "look":
            return '"/mnt/x/probe"'
        return json.dumps({"time": time.time(), **found[name]})

    monkeypatch.setattr(ssh, "run", run)
    return found


def test_a_sound_cluster(answers: dict[str, dict[str, Any]]) -> None:
    assert all(found.good for found in provider_of().doctor())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sees": False}, "lab-2: does not see the head's /mnt/x"),
        ({"time": time.time() + 3600}, "lab-2: its clock is off by "),
        ({"time": time.time() - 3600}, "lab-2: its clock is off by "),
        ({"dlsys": "0.0.1"}, f"lab-2: dlsys 0.0.1, here {__version__}"),
        ({"ray": "1.0"}, f"lab-2: ray 1.0, here {version('ray')}"),
        ({"free": 1e9}, "lab-2: /tmp has 1 GB free"),
    ],
)
def test_the_doctor_names_the_host_and_what_is_wrong(
    answers: dict[str, dict[str, Any]], changes: dict[str, Any], said: str
) -> None:
    answers["lab-2"] |= changes
    (bad,) = (found for found in provider_of().doctor() if not found.good)
    assert bad.what.startswith(said)
    assert bad.mend


@pytest.mark.parametrize("away", ["lab-1", "lab-3"])
def test_the_doctor_names_a_host_that_is_away(answers: dict[str, dict[str, Any]], away: str) -> None:
    del answers[away]
    (bad,) = (found for found in provider_of().doctor() if not found.good)
    assert bad.what == f"{away}: ssh: No route to host"


def test_up_refuses_before_anything_starts(answers: dict[str, dict[str, Any]]) -> None:
    answers["lab-3"]["sees"] = False
    said: list[str] = []
    with pytest.raises(
        UsageError, match="storage: lab-3 does not see what the head lab-1 writes into /mnt/x"
    ):
        provider_of().up(said.append)
    assert not said
    assert not ClusterPaths.all()
