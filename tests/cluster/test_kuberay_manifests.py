"""KubeRay: the manifests against the CRDs' own schema and the cluster file."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from kuberay_cluster import cluster, provider_of

from dlsys.spec.cluster.providers import KubeRay
from dlsys.spec.load import check_cluster, load_cluster
from dlsys.spec.yaml import read

CRDS = os.environ.get("DLSYS_KUBERAY_CRDS")


def objects(found: KubeRay, job: bool = False) -> dict[str, Any]:
    files = provider_of(found).render(["dlsys", "run", "it's", "$(x)"] if job else None)
    return {name: yaml.safe_load(text) for name, text in files.items()}


def pod_of(group: dict[str, Any]) -> dict[str, Any]:
    return group["template"]["spec"]


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
