"""KubeRay: the manifests against the CRDs' own schema, and the driving of a kubectl that is not real."""

from __future__ import annotations

import gzip
import json
import os
import sys
import textwrap
import urllib.request
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from dlsys.cluster import kuberay, manifests
from dlsys.cluster.kuberay import KubeRayProvider
from dlsys.cluster.places import ClusterPaths
from dlsys.errors import RunError, UsageError
from dlsys.spec.cluster.providers import KubeRay
from dlsys.spec.load import check_cluster, load_cluster
from dlsys.spec.yaml import read

CRDS = os.environ.get("DLSYS_KUBERAY_CRDS")

READY = """
kind: cluster
name: kube
provider: kuberay
namespace: training
context: there
image: registry.example.com/dlsys:1.2
claim: dlsys-runs
storage: /mnt/dlsys
service_account: trainer
idle_minutes: 7
nodes:
  - {name: head, cpus: 0.5, memory: 8Gi}
  - {name: gpu, cpus: 8, memory: 64Gi, gpus: 2, max: 4, spot: true, selector: {disk: "on", pool: "y"}}
  - {name: cpu, cpus: 16, memory: 512Mi, count: 0}
"""


def cluster(text: str = READY, **changes: Any) -> KubeRay:
    data = yaml.safe_load(text) | changes
    found = check_cluster(read(yaml.safe_dump(data), "cluster.yaml"))
    assert isinstance(found, KubeRay)
    return found


def provider_of(found: KubeRay) -> KubeRayProvider:
    return KubeRayProvider(found, ClusterPaths.of(found.name))


def objects(found: KubeRay, job: bool = False) -> dict[str, Any]:
    files = provider_of(found).render(["dlsys", "run", "it's", "$(x)"] if job else None)
    return {name: yaml.safe_load(text) for name, text in files.items()}


def pod_of(group: dict[str, Any]) -> dict[str, Any]:
    return group["template"]["spec"]


# The manifests


def strict(schema: Any) -> Any:
    """A CRD's schema in which an unknown field is an error."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


@pytest.fixture(scope="module")
def schemas() -> dict[str, Any]:
    if not CRDS:
        pytest.skip("DLSYS_KUBERAY_CRDS names no folder with KubeRay's ray.io_*.yaml.gz")
    found = {}
    for kind in ("RayCluster", "RayJob"):
        text = gzip.decompress(Path(CRDS, f"ray.io_{kind.lower()}s.yaml.gz").read_bytes())
        versions = yaml.load(text, Loader=yaml.CSafeLoader)["spec"]["versions"]
        (v1,) = (one for one in versions if one["name"] == "v1")
        found[kind] = strict(v1["schema"]["openAPIV3Schema"])
    return found


KINDS = {
    "full": {},
    "object store": {"storage": "s3://bucket/runs", "claim": None},
    "fixed size": {"nodes": [{"name": "head", "cpus": 2, "memory": "8Gi"}]},
    "strange texts": {"storage": "/mnt/a b'\"$(id)\\ é", "image": "x'\"$(y)"},
}


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
def test_the_crds_own_schema_takes_the_manifests(changes: dict[str, Any], schemas: dict[str, Any]) -> None:
    found = objects(cluster(**changes), job=True)
    jsonschema.validate(found["raycluster.yaml"], schemas["RayCluster"])
    jsonschema.validate(found["rayjob.yaml"], schemas["RayJob"])


@pytest.mark.parametrize("place", ["metadatas", "spec.x", "spec.headGroupSpec.template.spec.containers.x"])
def test_the_schema_would_refuse_an_unknown_field(place: str, schemas: dict[str, Any]) -> None:
    found = objects(cluster())["raycluster.yaml"]
    *way, last = place.split(".")
    target = found
    for key in way:
        target = target[key]
    (target[0] if isinstance(target, list) else target)[last] = 1
    with pytest.raises(jsonschema.ValidationError, match=f"'{last}' was unexpected"):
        jsonschema.validate(found, schemas["RayCluster"])


def test_the_ready_file_renders(root: Path) -> None:
    found = load_cluster(root / "cluster" / "kuberay.yaml").cluster
    assert isinstance(found, KubeRay)
    assert set(objects(found)) == {"secret.yaml", "configmap.yaml", "raycluster.yaml"}


def test_groups_are_as_the_file_says() -> None:
    spec = objects(cluster())["raycluster.yaml"]["spec"]
    head, (gpu, cpu) = spec["headGroupSpec"], spec["workerGroupSpecs"]
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["autoscalerOptions"]["idleTimeoutSeconds"] == 420
    assert [gpu[key] for key in ("minReplicas", "replicas", "maxReplicas")] == [1, 1, 4]
    assert [cpu[key] for key in ("minReplicas", "replicas", "maxReplicas")] == [0, 0, 0]
    for group, name, size in (
        (head, "head", {"cpu": "0.5", "memory": "8Gi"}),
        (gpu, "gpu", {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "2"}),
        (cpu, "cpu", {"cpu": "16", "memory": "512Mi"}),
    ):
        container = pod_of(group)["containers"][0]
        assert container["resources"] == {"requests": size, "limits": size}
        assert group["labels"] == {"dlsys/group": name}
        assert pod_of(group)["serviceAccountName"] == "trainer"
        assert {"name": "runs", "mountPath": "/mnt/dlsys"} in container["volumeMounts"]
        assert {"name": "runs", "persistentVolumeClaim": {"claimName": "dlsys-runs"}} in pod_of(group)[
            "volumes"
        ]
    assert pod_of(gpu)["nodeSelector"] == {"disk": "on", "pool": "y"}
    keys = {one["key"] for one in pod_of(gpu)["tolerations"]}
    assert {"nvidia.com/gpu", "cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority"} < keys
    assert "tolerations" not in pod_of(cpu)


def test_a_fixed_size_needs_no_autoscaler() -> None:
    spec = objects(cluster(nodes=[{"name": "head", "cpus": 1, "memory": "1Gi"}]))["raycluster.yaml"]["spec"]
    assert spec["enableInTreeAutoscaling"] is False
    assert "autoscalerOptions" not in spec


def test_every_container_of_ray_has_the_token_from_the_secret() -> None:
    found = objects(cluster())
    spec = found["raycluster.yaml"]["spec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    containers = [one for group in groups for one in pod_of(group)["containers"]]
    assert len(containers) == 4
    for holder in (*containers, spec["autoscalerOptions"]):
        env = {one["name"]: one for one in holder["env"]}
        secret = env["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]
        assert env["RAY_AUTH_MODE"]["value"] == "token"
        assert env["RAY_USAGE_STATS_ENABLED"]["value"] == "0"
        assert secret["name"] == found["secret.yaml"]["metadata"]["name"]
        assert secret["key"] in found["secret.yaml"]["stringData"]


def test_the_queue_is_in_the_heads_pod_with_the_cluster_file() -> None:
    found = objects(cluster())
    head = pod_of(found["raycluster.yaml"]["spec"]["headGroupSpec"])
    ray, desk = head["containers"]
    assert desk["command"] == ["python", "-m", "dlsys.jobs.desk", "/mnt/dlsys/clusters/kube"]
    assert {"name": "RAY_ADDRESS", "value": "127.0.0.1:6379"} in desk["env"]
    assert desk["volumeMounts"] == ray["volumeMounts"], "a driver beside Ray sees its files"
    assert (
        found["raycluster.yaml"]["spec"]["headGroupSpec"]["rayStartParams"]["dashboard-host"] == "127.0.0.1"
    )
    text = found["configmap.yaml"]["data"]["cluster.yaml"]
    assert check_cluster(read(text, "cluster.yaml")) == cluster()
    (copied,) = head["initContainers"]
    assert copied["command"][-1] == "/mnt/dlsys/clusters/kube/cluster.yaml"
    mounts = {one["name"]: one["mountPath"] for one in copied["volumeMounts"]}
    assert copied["command"][-2] == f"{mounts['cluster-file']}/cluster.yaml"


def test_with_an_object_store_the_queue_has_a_folder_of_its_pod() -> None:
    head = pod_of(
        objects(cluster(storage="s3://b/x", claim=None))["raycluster.yaml"]["spec"]["headGroupSpec"]
    )
    folder = head["containers"][1]["command"][-1]
    (mount,) = (one for one in head["containers"][1]["volumeMounts"] if one["name"] == "runs")
    assert folder.startswith(mount["mountPath"] + "/")
    assert {"name": "runs", "emptyDir": {}} in head["volumes"]


def test_kubernetes_expands_nothing_in_a_text_of_the_file() -> None:
    found = objects(cluster(storage="/mnt/$(RAY_AUTH_TOKEN)/$x"))
    head = pod_of(found["raycluster.yaml"]["spec"]["headGroupSpec"])
    assert head["containers"][1]["command"][-1] == "/mnt/$$(RAY_AUTH_TOKEN)/$$x/clusters/kube"
    assert {"name": "DLSYS_HOME", "value": "/mnt/$$(RAY_AUTH_TOKEN)/$$x"} in head["containers"][0]["env"]
    assert head["containers"][0]["volumeMounts"][0]["mountPath"] == "/mnt/$(RAY_AUTH_TOKEN)/$x", (
        "not expanded"
    )


def test_a_ray_job_is_shown_only_when_asked() -> None:
    assert "rayjob.yaml" not in objects(cluster())
    job = objects(cluster(), job=True)["rayjob.yaml"]["spec"]
    assert job["entrypoint"] == """dlsys run 'it'"'"'s' '$(x)'"""
    assert job["rayClusterSpec"]["authOptions"] == {"mode": "token", "secretName": "kube-token"}
    head = job["rayClusterSpec"]["headGroupSpec"]
    assert len(pod_of(head)["containers"]) == 1, "KubeRay's queue, not ours"
    assert "dashboard-host" not in head["rayStartParams"], "the operator asks the dashboard"


def test_texts_that_go_takes_for_booleans_are_quoted() -> None:
    text = provider_of(cluster()).render()["raycluster.yaml"]
    assert "pool: 'y'" in text
    assert "disk: 'on'" in text


# The driving

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
