"""From a cluster's file or name to its provider."""

from __future__ import annotations

import importlib
import os
from typing import Any, cast

from dlsys.cluster.provider import ClusterPaths, Provider
from dlsys.errors import UsageError
from dlsys.registry import did_you_mean
from dlsys.spec.cluster import Cluster
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


def find(name: str | None) -> tuple[Cluster, Provider]:
    """A cluster that was brought up here, by its name.

    Args:
        name: the name; None is DLSYS_CLUSTER's, or the only cluster's that is up.

    Raises:
        UsageError: no such cluster, or several.
    """
    known = {paths.name: paths for paths in ClusterPaths.all()}
    name = name or os.environ.get("DLSYS_CLUSTER") or None
    if name is None and len(known) == 1:
        name = next(iter(known))
    if name is None:
        raise UsageError(
            f"which cluster? {'Up: ' + ', '.join(known) if known else 'None is up'}",
            hint="Say --cluster NAME, or start one: dlsys cluster up cluster/two_nodes",
        )
    if name not in known:
        raise UsageError(
            f"no cluster {name!r} is up.{did_you_mean(name, known)}",
            hint=f"Up: {', '.join(known) or 'none'}. Start one: dlsys cluster up FILE",
        )
    cluster = load_cluster(known[name].source).cluster
    return cluster, provider_of(cluster)
