"""Rules between the fields of a cluster file."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dlsys.spec.cluster.providers import Cloud, Cluster, KubeRay, Local, Slurm, Ssh, node_name
from dlsys.spec.rules import Found
from dlsys.spec.section import show
from dlsys.spec.yaml import Path

# Kubernetes' DNS labels and Google Cloud's and Azure's names of machines, with room for what is added.
_PLAIN_NAME = re.compile(r"[a-z]([a-z0-9-]{0,33}[a-z0-9])?")
# Kubernetes' names of objects.
_OBJECT = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_LOGIN = re.compile(r"[a-z_][a-z0-9_.-]*", re.IGNORECASE)
_CLOUD_KEYS = {"aws": (), "gcp": ("zone", "project"), "azure": ("project",)}


def check(cluster: Cluster) -> Found:
    """Every broken rule, as (path, sentence)."""
    yield from _names(cluster)
    yield from _sizes(cluster)
    yield from _storage(cluster)
    if isinstance(cluster, Ssh):
        hosts = [
            (("nodes", i, "hosts", j), host)
            for i, node in enumerate(cluster.nodes)
            for j, host in enumerate(node.hosts)
        ]
        for place, name in _again([(place, node_name(host)) for place, host in hosts]):
            yield place, f"host {show(name)} stands there twice"
    if isinstance(cluster, KubeRay):
        yield from _kuberay(cluster)
    if isinstance(cluster, Cloud):
        yield from _cloud(cluster)


def _again(places: Iterable[tuple[Path, str]]) -> Iterable[tuple[Path, str]]:
    """Those whose text stood at an earlier place."""
    seen = set()
    for place, text in places:
        if text in seen:
            yield place, text
        seen.add(text)


def _names(cluster: Cluster) -> Found:
    groups: list[tuple[Path, str]] = [
        (("nodes", index, "name"), node.name) for index, node in enumerate(cluster.nodes)
    ]
    for place, name in _again(groups):
        yield place, f"another group is called {show(name)} too: names of groups differ"
    if cluster.provider in ("gcp", "azure", "kuberay"):
        for place, name in [(("name",), cluster.name), *groups]:
            if not _PLAIN_NAME.fullmatch(name):
                yield (
                    place,
                    f"{show(name)} becomes a part of names at {cluster.provider}: 1 to 35 of a-z, 0-9 and "
                    "'-', starting with a letter, ending with a letter or digit",
                )
    else:
        for place, name in groups:
            if not name[-1].isalnum():
                yield place, f"{show(name)} becomes a label of Ray's nodes: end it with a letter or digit"


def _sizes(cluster: Cluster) -> Found:
    for index, node in enumerate(cluster.nodes):
        most = getattr(node, "max", None)
        if most is not None and most < node.count:
            yield ("nodes", index, "max"), f"must be at least count ({node.count}), got {most}"
    head = cluster.nodes[0]
    if isinstance(cluster, Slurm):
        return  # the head is one of a group of equal machines
    if isinstance(cluster, Ssh):
        if len(head.hosts) != 1:
            yield ("nodes", 0, "hosts"), f"the first group is the head: one host, got {len(head.hosts)}"
        return
    for key in ("count", "max"):
        found = getattr(head, key, None)
        if found is not None and found != 1:
            yield ("nodes", 0, key), f"the first group is the head: must be 1, got {found}"
            return


def _storage(cluster: Cluster) -> Found:
    storage = cluster.storage
    if storage is None:
        return
    scheme, separator, rest = storage.partition("://")
    if separator and isinstance(cluster, Slurm | Ssh):
        yield ("storage",), f"must be a folder, got {show(storage)}: nodes find the cluster's token there"
    elif separator and ":" in rest.partition("/")[0].rpartition("@")[0]:
        yield ("storage",), "has a password: rights to a store come from the nodes' environment or role"
    elif separator and not (scheme.isidentifier() and rest):
        yield ("storage",), f"{show(storage)} is no address: say s3://bucket/folder"
    elif not separator and not isinstance(cluster, Local) and not storage.startswith("/"):
        yield ("storage",), f"must be an absolute path, the same on all nodes, got {show(storage)}"
    if isinstance(cluster, KubeRay) and bool(separator) == bool(cluster.claim):
        if separator:
            yield ("claim",), "is mounted at storage, and storage is the address of an object store"
        else:
            yield ("claim",), f"is required: pods see no common folder {show(storage)} without one"


def _kuberay(cluster: KubeRay) -> Found:
    for key in ("namespace", "claim", "service_account"):
        name = getattr(cluster, key)
        if name is not None and not _OBJECT.fullmatch(name):
            yield (key,), f"{show(name)} is no name in Kubernetes: it has '_', or ends with '-' or '.'"
    for index, node in enumerate(cluster.nodes):
        if index and node.name == "headgroup":
            yield ("nodes", index, "name"), "'headgroup' is what KubeRay calls the head"


def _cloud(cluster: Cloud) -> Found:
    for key in _CLOUD_KEYS[cluster.provider]:
        if getattr(cluster, key) is None:
            yield (key,), f"is required with provider {cluster.provider}"
    if cluster.provider == "aws" and cluster.project is not None:
        yield ("project",), "means nothing to provider aws: leave it out"
    if cluster.provider != "azure" and cluster.zone and not cluster.zone.startswith(cluster.region):
        yield ("zone",), f"{show(cluster.zone)} is not in region {show(cluster.region)}"
    if not _LOGIN.fullmatch(cluster.user):
        yield ("user",), f"{show(cluster.user)} is no name of a user"
    for index, node in enumerate(cluster.nodes):
        if (node.max or 0) > node.count and node.cpus is None and cluster.provider != "aws":
            yield (
                ("nodes", index, "cpus"),
                f"is required with provider {cluster.provider} where max is above count: "
                "the autoscaler must know what a machine brings",
            )
