"""Rules between the fields of a cluster file."""

from __future__ import annotations

import re
from collections import Counter

from dlsys.spec.cluster import Cloud, Cluster, KubeRay, Local, Slurm, Ssh
from dlsys.spec.rules import Found
from dlsys.spec.section import show
from dlsys.spec.yaml import Path

# What a label of a host name may be: names of pods and machines are made of it.
_LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_OBJECT = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?([KMGTPE]i|[kMGTPE])?")
_LOGIN = re.compile(r"[a-z_][a-z0-9_.-]*", re.IGNORECASE)
# KubeRay adds up to 16 characters to a cluster's name, Ray's launcher up to 28, and 63 is the limit.
_LONGEST = {"kuberay": 47, "gcp": 35, "azure": 35}


def check(cluster: Cluster) -> Found:
    """Every broken rule, as (path, sentence)."""
    for name, times in Counter(node.name for node in cluster.nodes).items():
        if times > 1:
            yield ("nodes",), f"{times} groups are called {show(name)}: names of groups differ"
    for index, node in enumerate(cluster.nodes):
        most = getattr(node, "max", None)
        if most is not None and most < node.count:
            yield ("nodes", index, "max"), f"must be at least count ({node.count}), got {most}"
    if not isinstance(cluster, Slurm):
        yield from _one_head(cluster)
    yield from _storage(cluster)
    if isinstance(cluster, Ssh):
        hosts = Counter(host for node in cluster.nodes for host in node.hosts)
        for host in (host for host, times in hosts.items() if times > 1):
            yield ("nodes",), f"host {show(host)} stands there twice"
    if isinstance(cluster, KubeRay):
        yield from _kuberay(cluster)
    if isinstance(cluster, Cloud):
        yield from _cloud(cluster)
    if cluster.provider in _LONGEST:
        yield from _names(cluster)


def _one_head(cluster: Cluster) -> Found:
    head = cluster.nodes[0]
    if isinstance(cluster, Ssh):
        if len(head.hosts) != 1:
            yield ("nodes", 0, "hosts"), f"the first group is the head: one host, got {len(head.hosts)}"
    elif head.count != 1 or (getattr(head, "max", None) or 1) != 1:
        key = "count" if head.count != 1 else "max"
        got = head.count if head.count != 1 else head.max
        yield ("nodes", 0, key), f"the first group is the head: must be 1, got {got}"


def _storage(cluster: Cluster) -> Found:
    storage = cluster.storage
    if storage is None:
        return
    scheme, separator, rest = storage.partition("://")
    if separator and not (scheme.isidentifier() and rest):
        yield ("storage",), f"{show(storage)} is no address: say s3://bucket/folder"
    elif not separator and not isinstance(cluster, Local) and not storage.startswith("/"):
        yield ("storage",), f"must be an absolute path, the same on all nodes, got {show(storage)}"
    if isinstance(cluster, KubeRay) and bool(separator) == bool(cluster.claim):
        if separator:
            yield ("claim",), "is mounted at storage, and storage is the address of an object store"
        else:
            yield ("claim",), f"is required: pods see no common folder {show(storage)} without one"


def _names(cluster: Cluster) -> Found:
    """Names that others make names of hosts and labels from."""
    longest = _LONGEST[cluster.provider]
    names: dict[Path, str] = {("name",): cluster.name}
    names |= {("nodes", index, "name"): node.name for index, node in enumerate(cluster.nodes)}
    for path, name in names.items():
        if not _LABEL.fullmatch(name) or len(name) > longest:
            rule = f"up to {longest} of a-z, 0-9 and '-', first a letter and last no '-'"
            yield path, f"{show(name)}: with provider {cluster.provider}, a name is {rule}"


def _kuberay(cluster: KubeRay) -> Found:
    for key in ("namespace", "claim", "service_account"):
        name = getattr(cluster, key)
        if name is not None and not _OBJECT.fullmatch(name):
            yield (key,), f"{show(name)} is no name in Kubernetes: it has '_', or ends with '-' or '.'"
    for index, node in enumerate(cluster.nodes):
        if not _QUANTITY.fullmatch(node.memory):
            yield ("nodes", index, "memory"), f"must be a quantity such as 8Gi, got {show(node.memory)}"
        if index and node.name == "headgroup":
            yield ("nodes", index, "name"), "'headgroup' is what KubeRay calls the head"


def _cloud(cluster: Cloud) -> Found:
    need = {"aws": (), "gcp": ("zone", "project"), "azure": ("project",)}[cluster.provider]
    for key in need:
        if getattr(cluster, key) is None:
            yield (key,), f"is required with provider {cluster.provider}"
    if cluster.provider != "gcp" and cluster.provider != "azure" and cluster.project is not None:
        yield ("project",), f"means nothing to provider {cluster.provider}"
    if not _LOGIN.fullmatch(cluster.user):
        yield ("user",), f"{show(cluster.user)} is no name of a user"
    for index, node in enumerate(cluster.nodes):
        for key in ("cpus", "gpus"):
            value = getattr(node, key)
            if value is not None and value != int(value):
                yield ("nodes", index, key), f"must be a whole number in a cloud, got {value}"
        grows = (node.max or 0) > node.count
        if grows and node.cpus is None and cluster.provider != "aws":
            yield (
                ("nodes", index, "cpus"),
                f"is required with provider {cluster.provider} where max is above count: "
                "the autoscaler must know what a machine brings",
            )
