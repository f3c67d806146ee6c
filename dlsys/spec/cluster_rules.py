"""Rules between the fields of a cluster file."""

from __future__ import annotations

from collections import Counter

from dlsys.spec.cluster import Cloud, Cluster, KubeRay, Local, Slurm, Ssh
from dlsys.spec.rules import Found
from dlsys.spec.section import show


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
    if isinstance(cluster, Cloud):
        yield from _cloud(cluster)


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


def _cloud(cluster: Cloud) -> Found:
    need = {"aws": (), "gcp": ("zone", "project"), "azure": ("project",)}[cluster.provider]
    for key in need:
        if getattr(cluster, key) is None:
            yield (key,), f"is required with provider {cluster.provider}"
    if cluster.provider != "gcp" and cluster.provider != "azure" and cluster.project is not None:
        yield ("project",), f"means nothing to provider {cluster.provider}"
