"""A cluster of pods as Kubernetes objects: a Secret, a ConfigMap, KubeRay's RayCluster, and its RayJob.

All are plain values; nothing is put into text before they are dumped. The token comes to containers as
an environment variable from the Secret, and not by RayCluster's own `authOptions`: operators before 1.6
know no Secret there, and the queue's container, being none of KubeRay's, would get none.
https://docs.ray.io/en/latest/cluster/kubernetes/references.html
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from dlsys.cluster.provider import DESK_PORT, cluster_text
from dlsys.spec.cluster.providers import KubeRay, Pod

Object = dict[str, Any]

CLUSTER_LABEL = "dlsys/cluster"
OWNER_LABEL = "dlsys/owner"
# The queue of jobs holds no data and trains nothing.
DESK_SIZE = {"cpu": "500m", "memory": "1Gi"}

_HOME = "/var/lib/dlsys"
_FILE = "/etc/dlsys"
# Google's, Azure's, Karpenter's and EKS's marks of nodes that may be taken away.
_SPOT_TAINTS = (
    "cloud.google.com/gke-spot",
    "cloud.google.com/gke-preemptible",
    "kubernetes.azure.com/scalesetpriority",
    "karpenter.sh/capacity-type",
    "eks.amazonaws.com/capacityType",
)
# A probe by HTTP or TCP comes from the node, and cannot reach the pod's loopback.
_DESK_ANSWERS = f"import socket; socket.create_connection(('127.0.0.1', {DESK_PORT}), 2)"


def labels(cluster: KubeRay, owner: str) -> dict[str, str]:
    """What marks the objects of a cluster.

    Args:
        cluster: the cluster.
        owner: says whose token the cluster has, without giving it away.
    """
    return {CLUSTER_LABEL: cluster.name, OWNER_LABEL: owner}


def secret(cluster: KubeRay, owner: str, token: str) -> Object:
    """The token of Ray and of the queue."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata(cluster, owner, _secret_name(cluster)),
        "stringData": {"auth_token": token},
    }


def config_map(cluster: KubeRay, owner: str) -> Object:
    """The cluster file, for the queue."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(cluster, owner, f"{cluster.name}-file"),
        "data": {"cluster.yaml": cluster_text(cluster)},
    }


def ray_cluster(cluster: KubeRay, owner: str, replicas: Mapping[str, int]) -> Object:
    """The pods.

    Args:
        cluster: the cluster.
        owner: as `labels` takes it.
        replicas: how many pods a group has now, by its name, where they differ from `count`.
    """
    spec = _ray_spec(cluster, replicas)
    # KubeRay's probes ask the agent, or this pod's loopback: nothing else needs the dashboard.
    spec["headGroupSpec"]["rayStartParams"]["dashboard-host"] = "127.0.0.1"
    _add_desk(cluster, spec["headGroupSpec"]["template"]["spec"])
    if spec["enableInTreeAutoscaling"]:
        spec["autoscalerOptions"]["env"] = _ray_env(cluster)
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": _metadata(cluster, owner, cluster.name),
        "spec": spec,
    }


def ray_job(cluster: KubeRay, owner: str, entrypoint: Sequence[str]) -> Object:
    """One job on pods of its own, which go when it has ended: KubeRay's queue in place of ours.

    The operator and its submitting pod reach the dashboard by the head's service, so that it listens on
    the pod's address; the token guards it, which the operator must know: KubeRay 1.6 or newer.

    Args:
        cluster: the cluster.
        owner: as `labels` takes it.
        entrypoint: the command, `["dlsys", "run", "vision/lenet5"]`; what it names is in the image.
    """
    spec = _ray_spec(cluster, {})
    spec["authOptions"] = {"mode": "token", "secretName": _secret_name(cluster)}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": _metadata(cluster, owner, cluster.name),
        "spec": {
            "entrypoint": shlex.join(entrypoint),
            "shutdownAfterJobFinishes": True,
            "rayClusterSpec": spec,
        },
    }


def _metadata(cluster: KubeRay, owner: str, name: str) -> Object:
    return {"name": name, "namespace": cluster.namespace, "labels": labels(cluster, owner)}


def _secret_name(cluster: KubeRay) -> str:
    return f"{cluster.name}-token"


def _ray_spec(cluster: KubeRay, replicas: Mapping[str, int]) -> Object:
    head, *groups = cluster.nodes
    spec: Object = {
        "rayVersion": version("ray"),
        "enableInTreeAutoscaling": any(_most(group) > group.count for group in groups),
        "headGroupSpec": _group(cluster, head, "ray-head"),
        "workerGroupSpecs": [
            {
                "groupName": group.name,
                "minReplicas": group.count,
                "maxReplicas": _most(group),
                "replicas": min(max(replicas.get(group.name, 0), group.count), _most(group)),
                **_group(cluster, group, "ray-worker"),
            }
            for group in groups
        ],
    }
    if spec["enableInTreeAutoscaling"]:
        spec["autoscalerOptions"] = {"idleTimeoutSeconds": cluster.idle_minutes * 60}
    return spec


def _most(pod: Pod) -> int:
    return pod.count if pod.max is None else pod.max


def _group(cluster: KubeRay, pod: Pod, container: str) -> Object:
    """What head and workers have in common."""
    template: Object = {
        "containers": [
            {
                "name": container,
                "image": cluster.image,
                # KubeRay puts `&& ray start …` behind it. What pods leave in `storage` is for their
                # user and group, since pods without a root share volumes by their group.
                "args": ["umask 0007"],
                "env": _env(cluster),
                "resources": _resources(_size(pod)),
                "volumeMounts": [{"name": "runs", "mountPath": _home(cluster)}],
            }
        ],
        "volumes": [_runs(cluster)],
    }
    if pod.selector:
        template["nodeSelector"] = dict(pod.selector)
    taints = ["nvidia.com/gpu"] if pod.gpus else []
    taints += _SPOT_TAINTS if pod.spot else []
    if taints:
        template["tolerations"] = [
            {"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in taints
        ]
    if cluster.service_account:
        template["serviceAccountName"] = cluster.service_account
    return {
        "rayStartParams": {"block": "true"},
        "labels": {"dlsys/group": pod.name},
        "template": {"metadata": {"labels": {CLUSTER_LABEL: cluster.name}}, "spec": template},
    }


def _add_desk(cluster: KubeRay, head: Object) -> None:
    """Puts the queue of jobs beside Ray's head: in the same pod, with the same files and processes, so
    that a driver there is as good as one in Ray's own container."""
    # Names and mounts as KubeRay would choose them; it leaves what is there as it is.
    memory = head["containers"][0]["resources"]["limits"]["memory"]
    head["volumes"] += [
        {"name": "shared-mem", "emptyDir": {"medium": "Memory", "sizeLimit": memory}},
        {"name": "ray-logs", "emptyDir": {}},
        {"name": "cluster-file", "configMap": {"name": f"{cluster.name}-file"}},
    ]
    head["containers"][0]["volumeMounts"] += [
        {"name": "shared-mem", "mountPath": "/dev/shm"},
        {"name": "ray-logs", "mountPath": "/tmp/ray"},
    ]
    head["shareProcessNamespace"] = True
    folder = f"{_home(cluster)}/clusters/{cluster.name}"
    source, target = f"{_FILE}/cluster.yaml", f"{folder}/cluster.yaml"
    head["initContainers"] = [
        {
            "name": "cluster-file",
            "image": cluster.image,
            "command": ["install", "-D", "-m", "600", source, _literal(target)],
            "resources": _resources(DESK_SIZE),
            "volumeMounts": [
                {"name": "runs", "mountPath": _home(cluster)},
                {"name": "cluster-file", "mountPath": _FILE},
            ],
        }
    ]
    head["containers"].append(
        {
            "name": "desk",
            "image": cluster.image,
            "command": ["python", "-m", "dlsys.jobs.desk", _literal(folder)],
            "env": [*_env(cluster), {"name": "RAY_ADDRESS", "value": "127.0.0.1:6379"}],
            "resources": _resources(DESK_SIZE),
            "readinessProbe": {"exec": {"command": ["python", "-c", _DESK_ANSWERS]}, "timeoutSeconds": 5},
            "volumeMounts": [dict(mount) for mount in head["containers"][0]["volumeMounts"]],
        }
    )


def _home(cluster: KubeRay) -> str:
    """Where pods keep files: the claim's mount, or a folder that lives as long as its pod."""
    return cluster.storage if cluster.claim else _HOME


def _runs(cluster: KubeRay) -> Object:
    if cluster.claim:
        return {"name": "runs", "persistentVolumeClaim": {"claimName": cluster.claim}}
    return {"name": "runs", "emptyDir": {}}


def _env(cluster: KubeRay) -> list[Object]:
    return [*_ray_env(cluster), {"name": "DLSYS_HOME", "value": _literal(_home(cluster))}]


def _ray_env(cluster: KubeRay) -> list[Object]:
    token = {"secretKeyRef": {"name": _secret_name(cluster), "key": "auth_token"}}
    return [
        {"name": "RAY_AUTH_MODE", "value": "token"},
        {"name": "RAY_AUTH_TOKEN", "valueFrom": token},
        {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"},
    ]


def _size(pod: Pod) -> dict[str, str]:
    size = {"cpu": str(pod.cpus).removesuffix(".0"), "memory": pod.memory}
    return size | ({"nvidia.com/gpu": str(pod.gpus)} if pod.gpus else {})


def _resources(size: Mapping[str, str]) -> Object:
    return {"requests": dict(size), "limits": dict(size)}


def _literal(text: str) -> str:
    """A text that Kubernetes leaves as it is: it would expand `$(NAME)` in commands and variables."""
    return text.replace("$", "$$")
