"""Clusters of pods, by KubeRay's operator and kubectl."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from dlsys.cluster import manifests
from dlsys.cluster.commands import answers, find, run, tunnel
from dlsys.cluster.places import ClusterPaths, Endpoint
from dlsys.cluster.provider import DESK_PORT, Finding, cluster_text
from dlsys.errors import DlsysError, RunError, UsageError
from dlsys.spec import yaml
from dlsys.spec.cluster.providers import KubeRay

# Stands for the token, and for whose it is, until `up` knows them.
_BY_UP = "made-by-up"
# Seconds: a fresh node and a large image take minutes.
PATIENCE = 20 * 60
POLL = 2.0

_INSTALL_KUBERAY = (
    "Install KubeRay's operator: helm repo add kuberay https://ray-project.github.io/kuberay-helm/ && "
    "helm install kuberay-operator kuberay/kuberay-operator"
)
_ASK = "Ask who runs the Kubernetes cluster for this right."
_HINTS = {
    r"[Uu]nable to connect|connection refused|no such host|context .* does not exist|current-context":
    "See which there are: kubectl config get-contexts; name one as `context` in the cluster file.",
    r"must be logged in|Unauthorized|getting credentials": "Log in again, as your cluster wants it.",
    r"[Ff]orbidden": _ASK,
    r'no matches for kind "Ray|the server doesn.t have a resource type': _INSTALL_KUBERAY,
    r"unknown field|field not declared in schema": "KubeRay 1.5 or newer is needed: helm upgrade it.",
    r'namespaces? "[^"]*" not found': "Make it: kubectl create namespace NAME",
}  # fmt: skip
# What a container waits for in vain; `CrashLoopBackOff` counts after some restarts.
_HOPELESS = ("ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError", "CrashLoopBackOff")
_RESTARTS = 4
_RIGHTS = (
    ("create", "rayclusters.ray.io"),
    ("create", "secrets"),
    ("create", "configmaps"),
    ("list", "pods"),
    ("create", "pods/portforward"),
)


class KubeRayProvider:
    """A RayCluster, with the queue of jobs in its head pod.

    Args:
        cluster: what it is to be.
        paths: its files on this machine.
    """

    def __init__(self, cluster: KubeRay, paths: ClusterPaths) -> None:
        self._cluster = cluster
        self._paths = paths

    def render(self, entrypoint: Sequence[str] | None = None) -> dict[str, str]:
        """The manifests, by file name; the token is left out.

        Args:
            entrypoint: a command for a RayJob, which is shown too.
        """
        files = self._manifests(_BY_UP, _BY_UP, {})
        if entrypoint is not None:
            files["rayjob.yaml"] = yaml.dump(manifests.ray_job(self._cluster, _BY_UP, entrypoint))
        return files

    def up(self, say: Callable[[str], None]) -> None:
        self._paths.make()
        token = self._paths.read_token()
        found = self._found()
        if found is not None and _label(found, manifests.OWNER_LABEL) != _owner(token):
            raise UsageError(
                f"name: namespace {self._cluster.namespace} has a RayCluster {self._cluster.name!r} that was "
                "not brought up from here",
                hint=f"Take another name, or delete it: kubectl delete raycluster {self._cluster.name}",
            )
        self._paths.source.write_text(cluster_text(self._cluster), encoding="utf-8")
        files = self._manifests(_owner(token), token, _replicas(found))
        # On the server's side: kubectl would keep a copy of the token in an annotation.
        given = ("apply", "--server-side", "--field-manager=dlsys", "--force-conflicts", "-f", "-")
        for line in self._kubectl(*given, stdin="---\n".join(files.values())).splitlines():
            say(line)
        self._wait(say)

    def down(self, say: Callable[[str], None]) -> None:
        if not self._paths.token.exists():
            say(f"nothing of cluster {self._cluster.name} was made from here")
            return
        marks = manifests.labels(self._cluster, _owner(self._paths.read_token()))
        done = self._kubectl(
            "delete",
            "rayclusters.ray.io,secrets,configmaps",
            "--selector=" + ",".join(f"{key}={value}" for key, value in marks.items()),
            # Returns when the pods are gone too.
            "--cascade=foreground",
            "--timeout=10m",
            timeout=660,
        )
        for line in done.splitlines():
            say(line)
        shutil.rmtree(self._paths.root)

    def alive(self) -> bool:
        try:
            pod = self._head()
        except DlsysError:
            return False
        return pod is not None and _ready(pod)

    @contextlib.contextmanager
    def connect(self) -> Iterator[Endpoint]:
        pod = self._head()
        if pod is None or not self._paths.token.exists():
            where = "has no head pod" if pod is None else "was brought up from elsewhere"
            raise RunError(
                f"cluster {self._cluster.name} {where} in namespace {self._cluster.namespace}",
                hint="Bring it up: dlsys cluster up FILE",
            )
        target = f"pod/{pod['metadata']['name']}"
        with tunnel(
            lambda port: self._command("port-forward", "--address=127.0.0.1", target, f"{port}:{DESK_PORT}")
        ) as port:
            yield Endpoint(f"http://127.0.0.1:{port}", self._paths.read_token())

    def doctor(self) -> Iterator[Finding]:
        try:
            self._kubectl("get", "--raw", "/version")
        except DlsysError as error:
            yield Finding(False, str(error), error.hint)
            return
        yield Finding(True, "kubectl reaches the Kubernetes cluster")
        yield from self._doctor_operator()
        missing = [f"{verb} {what}" for verb, what in _RIGHTS if not self._can(verb, what)]
        where = f"in namespace {self._cluster.namespace}"
        if missing:
            yield Finding(False, f"no right to {', '.join(missing)} {where}", _ASK)
        else:
            yield Finding(True, f"all rights that are needed {where}")
        if self._cluster.claim:
            yield self._doctor_claim(self._cluster.claim)
        yield from self._doctor_image()
        yield self._doctor_manifests()
        if self.alive():
            with self.connect() as endpoint:
                up = answers(endpoint.url)
            yield Finding(up, f"the queue of jobs {'answers' if up else 'does not answer'}")

    def _manifests(self, owner: str, token: str, replicas: Mapping[str, int]) -> dict[str, str]:
        objects = {
            "secret.yaml": manifests.secret(self._cluster, owner, token),
            "configmap.yaml": manifests.config_map(self._cluster, owner),
            "raycluster.yaml": manifests.ray_cluster(self._cluster, owner, replicas),
        }
        return {name: yaml.dump(found) for name, found in objects.items()}

    def _command(self, *arguments: str) -> list[str]:
        kubectl = find("kubectl", "Install it: https://kubernetes.io/docs/tasks/tools/")
        context = [f"--context={self._cluster.context}"] if self._cluster.context else []
        return [kubectl, *context, f"--namespace={self._cluster.namespace}", *arguments]

    def _kubectl(self, *arguments: str, stdin: str = "", timeout: float = 120) -> str:
        return run(self._command(*arguments), stdin=stdin, timeout=timeout, hints=_HINTS)

    def _can(self, verb: str, what: str) -> bool:
        try:
            return self._kubectl("auth", "can-i", verb, what).strip() == "yes"
        except RunError:
            return False

    def _found(self) -> dict[str, Any] | None:
        """The RayCluster of this name, as it is now."""
        given = ("get", "rayclusters.ray.io", self._cluster.name, "--ignore-not-found", "--output=json")
        text = self._kubectl(*given)
        return json.loads(text) if text.strip() else None

    def _head(self) -> dict[str, Any] | None:
        """The newest head pod that is not on its way out."""
        marks = f"ray.io/cluster={self._cluster.name},ray.io/node-type=head"
        found = json.loads(self._kubectl("get", "pods", f"--selector={marks}", "--output=json"))["items"]
        pods = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
        return max(pods, key=lambda pod: pod["metadata"].get("creationTimestamp", ""), default=None)

    def _wait(self, say: Callable[[str], None]) -> None:
        """Until the head pod is ready, its queue of jobs included."""
        last = ""
        deadline = time.monotonic() + PATIENCE
        while True:
            pod = self._head()
            if pod is not None and _ready(pod):
                say(f"{pod['metadata']['name']}: ready")
                return
            state = "waiting for KubeRay's operator to make the head pod"
            if pod is not None:
                state = f"{pod['metadata']['name']}: {_state(pod)}"
                self._refuse_hopeless(pod)
            if state != last:
                say(state)
            last = state
            if time.monotonic() > deadline:
                hint = _INSTALL_KUBERAY if pod is None else "dlsys cluster down takes it away again."
                raise RunError(f"no ready head pod after {PATIENCE // 60} minutes; {state}", hint=hint)
            time.sleep(POLL)

    def _refuse_hopeless(self, pod: dict[str, Any]) -> None:
        for container, waiting, restarts in _waiting(pod):
            reason = waiting["reason"]
            if reason not in _HOPELESS or (reason == "CrashLoopBackOff" and restarts < _RESTARTS):
                continue
            words = waiting.get("message", "")
            if restarts:
                name = pod["metadata"]["name"]
                with contextlib.suppress(RunError):
                    words = self._kubectl("logs", name, f"--container={container}", "--previous", "--tail=12")
            raise RunError(
                f"{pod['metadata']['name']}: {container}: {reason}: {words.strip()}",
                hint="Mend it and run dlsys cluster up again, or take it away: dlsys cluster down",
            )

    def _doctor_operator(self) -> Iterator[Finding]:
        kind = ("explain", "--api-version=ray.io/v1")
        try:
            self._kubectl(*kind, "raycluster.spec")
        except RunError:
            yield Finding(False, "Kubernetes does not know RayCluster of ray.io/v1", _INSTALL_KUBERAY)
            return
        try:
            self._kubectl(*kind, "raycluster.spec.headGroupSpec.labels")
        except RunError:
            yield Finding(False, "KubeRay's RayCluster is too old", "Upgrade KubeRay to 1.5 or newer.")
            return
        yield Finding(True, "KubeRay's RayCluster is installed")

    def _doctor_claim(self, claim: str) -> Finding:
        try:
            found = json.loads(self._kubectl("get", "persistentvolumeclaims", claim, "--output=json"))
        except RunError as error:
            return Finding(False, f"claim {claim}: {error}", "Make it, with access mode ReadWriteMany.")
        modes = found.get("spec", {}).get("accessModes", [])
        if "ReadWriteMany" not in modes:
            mend = (
                "Pods on several nodes need ReadWriteMany: take a storage class that has it (NFS, CephFS, …)."
            )
            return Finding(False, f"claim {claim} has {', '.join(modes) or 'no access mode'}", mend)
        return Finding(True, f"claim {claim} is there, ReadWriteMany, {found['status']['phase']}")

    def _doctor_image(self) -> Iterator[Finding]:
        image = self._cluster.image
        named = "@" in image or re.search(r":(?!latest$)[^/]+$", image)
        if not named:
            what = f"image {image} means another thing after each push, and pods may then differ"
            yield Finding(False, what, "Name a tag that stays, or a digest.")
        yield Finding(True, f"image {image} must hold dlsys and Ray {version('ray')}; nobody looked into it")

    def _doctor_manifests(self) -> Finding:
        given = ("apply", "--server-side", "--field-manager=dlsys", "--force-conflicts", "--dry-run=server")
        try:
            self._kubectl(
                *given, "-f", "-", stdin="---\n".join(self._manifests("doctor", "none", {}).values())
            )
        except RunError as error:
            return Finding(False, f"Kubernetes refuses the manifests: {error}", error.hint)
        return Finding(True, "Kubernetes takes the manifests")


def _owner(token: str) -> str:
    """Whose cluster it is: one token's, which this does not give away."""
    return hashlib.sha256(token.encode()).hexdigest()[:16]


def _label(found: dict[str, Any], key: str) -> str | None:
    labels: dict[str, str] = found["metadata"].get("labels", {})
    return labels.get(key)


def _replicas(found: dict[str, Any] | None) -> dict[str, int]:
    """How many pods the autoscaler wants now: another `up` must not take them from running jobs."""
    groups = found["spec"].get("workerGroupSpecs", []) if found else []
    return {group["groupName"]: group.get("replicas", 0) for group in groups}


def _ready(pod: dict[str, Any]) -> bool:
    found = pod.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in found)


def _waiting(pod: dict[str, Any]) -> Iterator[tuple[str, dict[str, str], int]]:
    """Containers that do not run, as (name, why, restarts so far)."""
    status = pod.get("status", {})
    for one in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        if "waiting" in one.get("state", {}):
            yield one["name"], {"reason": "", **one["state"]["waiting"]}, one.get("restartCount", 0)


def _state(pod: dict[str, Any]) -> str:
    """What a pod that is not ready waits for, in Kubernetes' words."""
    status = pod.get("status", {})
    for one in status.get("conditions", []):
        if one["type"] == "PodScheduled" and one["status"] == "False":
            return f"no node takes it: {one.get('message', one.get('reason', ''))}"
    reasons = [f"{name}: {waiting['reason']}" for name, waiting, _ in _waiting(pod)]
    return ", ".join(reasons) or f"{status.get('phase', 'Pending')}, not ready yet"
