"""From a cluster's file or name to its provider."""

from __future__ import annotations

import importlib
from typing import Any, cast

from dlsys.cluster.places import ClusterPaths, choose
from dlsys.cluster.provider import Provider
from dlsys.spec.cluster.providers import Cluster
from dlsys.spec.load import load_cluster

_CLASSES = {
    "local": "dlsys.cluster.local:LocalProvider",
    "ssh": "dlsys.cluster.ssh:SshProvider",
    "aws": "dlsys.cluster.cloud:CloudProvider",
    "gcp": "dlsys.cluster.cloud:CloudProvider",
    "azure": "dlsys.cluster.cloud:CloudProvider",
    "kuberay": "dlsys.cluster.kuberay:KubeRayProvider",
    "slurm": "dlsys.cluster.slurm:SlurmProvider",
}


def provider_of(cluster: Cluster) -> Provider:
    """The provider of a checked cluster."""
    module, _, name = _CLASSES[cluster.provider].partition(":")
    made: Any = getattr(importlib.import_module(module), name)
    return cast(Provider, made(cluster, ClusterPaths.of(cluster.name)))


def provider_at(paths: ClusterPaths) -> Provider:
    """The provider of a cluster that was brought up here."""
    return provider_of(load_cluster(paths.source).cluster)


def find(name: str | None) -> tuple[Cluster, Provider]:
    """A cluster that was brought up here, by its name, as `choose` finds it."""
    cluster = load_cluster(choose(name).source).cluster
    return cluster, provider_of(cluster)
