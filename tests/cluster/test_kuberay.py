"""KubeRay: the driving of a kubectl that is not real."""

from __future__ import annotations

import json
import os
import sys
import textwrap
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from kuberay_cluster import cluster, provider_of

from dlsys.cluster import kuberay, manifests
from dlsys.cluster.places import ClusterPaths
from dlsys.errors import RunError, UsageError

KUBECTL = """
import json, os, sys
from pathlib import Path

box = Path(os.environ["FAKE_KUBECTL"])
arguments = [one for one in sys.argv[1:] if not one.startswith(("--context=", "--namespace="))]
with open(box / "calls", "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
answers = json.loads((box / "answers").read_text())
verb = arguments[0]
if verb == "apply":
    (box / ("dry" if "--dry-run=server" in arguments else "applied")).write_text(sys.stdin.read())
if verb == "port-forward":
    from http.server import BaseHTTPRequestHandler, HTTPServer
    class Desk(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(418)
            self.end_headers()
        def log_message(self, *_): ...
    port = int(arguments[-1].split(":")[0])
    HTTPServer(("127.0.0.1", port), Desk).serve_forever()
for start, replies in answers.items():
    if " ".join(arguments).startswith(start):
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        (box / "answers").write_text(json.dumps(answers))
        print(reply.get("out", ""))
        print(reply.get("err", ""), file=sys.stderr)
        sys.exit(reply.get("rc", 0))
"""


class Kubectl:
    """A program `kubectl` that keeps what it is called with and says what it is told to say."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.answers: dict[str, list[dict[str, Any]]] = {}
        self.says({})

    def says(self, answers: dict[str, Any]) -> None:
        """Answers by the beginning of the arguments: text, or dicts; the last of several stays."""
        for start, replies in answers.items():
            several = replies if isinstance(replies, list) else [replies]
            self.answers[start] = [{"out": one} if isinstance(one, str) else one for one in several]
        (self.folder / "answers").write_text(json.dumps(self.answers))

    def calls(self, verb: str) -> list[list[str]]:
        lines = (self.folder / "calls").read_text().splitlines() if (self.folder / "calls").exists() else []
        return [found for found in map(json.loads, lines) if verb in found]

    def applied(self) -> dict[str, Any]:
        found = yaml.safe_load_all((self.folder / "applied").read_text())
        return {one["kind"]: one for one in found}


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kubectl:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "kubectl").write_text(f"#!{sys.executable} -IS\n{textwrap.dedent(KUBECTL)}")
    (programs / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    monkeypatch.setenv("FAKE_KUBECTL", str(tmp_path))
    monkeypatch.setattr(kuberay, "POLL", 0)
    return Kubectl(tmp_path)


def pods(ready: bool = True, **status: Any) -> str:
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    conditions = [*status.pop("conditions", []), condition]
    pod = {"metadata": {"name": "kube-head-x"}, "status": {"conditions": conditions, **status}}
    return json.dumps({"items": [pod]})


NO_PODS = json.dumps({"items": []})


def waits(name: str, reason: str, restarts: int = 0) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": "in its own words"}}
    return {"containerStatuses": [{"name": name, "state": state, "restartCount": restarts}]}


def test_up_applies_and_waits_for_the_head(kubectl: Kubectl) -> None:
    no_node = [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]
    steps = [
        NO_PODS,
        pods(False, conditions=no_node),
        pods(False, **waits("desk", "ContainerCreating")),
        pods(False, phase="Running"),
        pods(),
    ]
    kubectl.says({"apply": "secret/kube-token serverside-applied", "get pods": steps})
    said: list[str] = []
    provider_of(cluster()).up(said.append)
    assert said == [
        "secret/kube-token serverside-applied",
        "waiting for KubeRay's operator to make the head pod",
        "kube-head-x: no node takes it: 0/3 nodes are available",
        "kube-head-x: desk: ContainerCreating",
        "kube-head-x: Running, not ready yet",
        "kube-head-x: ready",
    ]
    assert all(call[:2] == ["--context=there", "--namespace=training"] for call in kubectl.calls("get"))


def test_the_token_goes_to_kubectls_standard_input_alone(kubectl: Kubectl) -> None:
    kubectl.says({"get pods": pods()})
    provider = provider_of(cluster())
    provider.up(lambda line: None)
    token = ClusterPaths.of("kube").read_token()
    assert kubectl.applied()["Secret"]["stringData"] == {"auth_token": token}
    assert token not in (kubectl.folder / "calls").read_text()
    assert not any(token in text for text in provider.render(["dlsys"]).values())
    labels = kubectl.applied()["RayCluster"]["metadata"]["labels"]
    assert token[:16] not in labels.values()


def test_another_up_leaves_what_the_autoscaler_has_made(kubectl: Kubectl) -> None:
    kubectl.says({"get pods": pods()})
    provider = provider_of(cluster())
    provider.up(lambda line: None)
    now = kubectl.applied()["RayCluster"]
    for replicas, kept in ((3, 3), (9, 4), (0, 1)):
        now["spec"]["workerGroupSpecs"][0]["replicas"] = replicas
        kubectl.says({"get rayclusters.ray.io": json.dumps(now)})
        provider.up(lambda line: None)
        assert kubectl.applied()["RayCluster"]["spec"]["workerGroupSpecs"][0]["replicas"] == kept


def test_a_strangers_cluster_is_left_alone(kubectl: Kubectl) -> None:
    stranger = {"metadata": {"labels": {manifests.OWNER_LABEL: "somebody"}}, "spec": {}}
    kubectl.says({"get rayclusters.ray.io": json.dumps(stranger)})
    with pytest.raises(UsageError, match="'kube' that was not brought up from here"):
        provider_of(cluster()).up(lambda line: None)
    assert not kubectl.calls("apply")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (waits("ray-head", "ImagePullBackOff"), "ray-head: ImagePullBackOff: in its own words"),
        (waits("desk", "CrashLoopBackOff", 4), "desk: CrashLoopBackOff: no module named dlsys"),
    ],
    ids=["image", "crash"],
)
def test_up_ends_when_there_is_no_hope(kubectl: Kubectl, status: dict[str, Any], words: str) -> None:
    kubectl.says({"get pods": pods(False, **status), "logs kube-head-x": "no module named dlsys"})
    with pytest.raises(RunError, match=words):
        provider_of(cluster()).up(lambda line: None)


def test_up_does_not_wait_for_ever(kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kuberay, "PATIENCE", 0)
    kubectl.says({"get pods": NO_PODS})
    with pytest.raises(RunError, match="no ready head pod") as caught:
        provider_of(cluster()).up(lambda line: None)
    assert "helm install" in caught.value.hint


def test_down_deletes_what_up_made_and_nothing_else(kubectl: Kubectl) -> None:
    said: list[str] = []
    provider = provider_of(cluster())
    provider.down(said.append)
    assert said == ["nothing of cluster kube was made from here"]
    assert not kubectl.calls("delete")
    kubectl.says({"get pods": pods(), "delete": "deleted"})
    provider.up(lambda line: None)
    provider.down(said.append)
    (call,) = kubectl.calls("delete")
    (selector,) = (one.removeprefix("--selector=") for one in call if one.startswith("--selector="))
    marks = dict(one.split("=") for one in selector.split(","))
    for made in kubectl.applied().values():
        assert made["metadata"]["labels"] == marks
        assert f"{made['kind'].lower()}s" in call[call.index("delete") + 1].replace(".ray.io", "")
    assert said[-1] == "deleted"


def test_connect_forwards_a_port_as_long_as_it_is_used(kubectl: Kubectl) -> None:
    kubectl.says({"get pods": pods()})
    provider = provider_of(cluster())
    provider.up(lambda line: None)
    assert provider.alive()
    with provider.connect() as endpoint:
        assert endpoint.token == ClusterPaths.of("kube").read_token()
        with pytest.raises(urllib.error.HTTPError, match="418"):
            urllib.request.urlopen(endpoint.url, timeout=10)
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(endpoint.url, timeout=10)


def test_connect_says_when_there_is_nothing(kubectl: Kubectl) -> None:
    kubectl.says({"get pods": NO_PODS})
    assert not provider_of(cluster()).alive()
    with pytest.raises(RunError, match="has no head pod"), provider_of(cluster()).connect():
        pass


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ('error: context "there" does not exist', "get-contexts"),
        ("The connection to the server localhost:8080 was refused: connection refused", "get-contexts"),
        ('secrets is forbidden: User "me" cannot create', "this right"),
        ('no matches for kind "RayCluster" in version "ray.io/v1"', "helm install kuberay-operator"),
        ('strict decoding error: unknown field "spec.headGroupSpec.labels"', "1.5 or newer"),
        ('namespaces "training" not found', "kubectl create namespace"),
    ],
)
def test_kubectls_errors_say_how_to_mend_them(kubectl: Kubectl, said: str, hint: str) -> None:
    kubectl.says({"apply": {"rc": 1, "err": said}})
    with pytest.raises(RunError, match="kubectl apply: ") as caught:
        provider_of(cluster()).up(lambda line: None)
    assert said in str(caught.value)
    assert hint in caught.value.hint


def test_without_kubectl_there_is_a_word_about_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (found,) = provider_of(cluster()).doctor()
    assert not found.good
    assert "kubectl is not on this machine" in found.what
    assert "https://" in found.mend


def healthy(kubectl: Kubectl) -> None:
    claim = {"spec": {"accessModes": ["ReadWriteMany"]}, "status": {"phase": "Bound"}}
    kubectl.says({"auth can-i": "yes", "get pods": NO_PODS, "get persistentvolumeclaims": json.dumps(claim)})


def test_the_doctor_finds_nothing_wrong(kubectl: Kubectl) -> None:
    healthy(kubectl)
    found = list(provider_of(cluster()).doctor())
    assert [one.what for one in found if not one.good] == []
    assert any("claim dlsys-runs is there" in one.what for one in found)
    assert (kubectl.folder / "dry").exists()
    assert not (kubectl.folder / "applied").exists()


@pytest.mark.parametrize(
    ("answers", "changes", "what"),
    [
        ({"get --raw": {"rc": 1, "err": "Unable to connect"}}, {}, "Unable to connect"),
        ({"auth can-i create secrets": {"rc": 1, "out": "no"}}, {}, "no right to create secrets"),
        ({"explain --api-version=ray.io/v1 raycluster.spec": {"rc": 1}}, {}, "does not know RayCluster"),
        ({"explain --api-version=ray.io/v1 raycluster.spec.h": {"rc": 1}}, {}, "too old"),
        ({"get persistentvolumeclaims": {"rc": 1, "err": "NotFound"}}, {}, "claim dlsys-runs"),
        ({"get persistentvolumeclaims": '{"spec": {"accessModes": ["ReadWriteOnce"]}}'}, {}, "ReadWriteOnce"),
        ({}, {"image": "registry:5000/dlsys"}, "another thing after each push"),
        ({}, {"image": "dlsys:latest"}, "another thing after each push"),
        ({"apply": {"rc": 1, "err": "quota"}}, {}, "refuses the manifests"),
    ],
)
def test_the_doctor_names_what_is_wrong(
    kubectl: Kubectl, answers: dict[str, Any], changes: dict[str, Any], what: str
) -> None:
    kubectl.says(answers)
    healthy(kubectl)
    kubectl.says(answers)
    bad = [one for one in provider_of(cluster(**changes)).doctor() if not one.good]
    assert len(bad) == 1
    assert what in bad[0].what
    assert bad[0].mend or "quota" in bad[0].what


@pytest.mark.parametrize("image", ["registry:5000/dlsys:1", "dlsys@sha256:0123"])
def test_an_image_that_stays_is_not_named(kubectl: Kubectl, image: str) -> None:
    healthy(kubectl)
    assert all(one.good for one in provider_of(cluster(image=image)).doctor())
