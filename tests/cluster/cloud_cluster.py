"""What the tests of clouds share: a cluster of each."""

from __future__ import annotations

from typing import Any

import yaml

from dlsys.cluster.cloud import CloudProvider
from dlsys.cluster.places import ClusterPaths
from dlsys.spec.cluster.providers import Cloud
from dlsys.spec.load import check_cluster
from dlsys.spec.yaml import read

NODES = [
    {"name": "head", "machine": "small", "cpus": 0},
    {
        "name": "gpu",
        "machine": "large",
        "cpus": 8,
        "gpus": 2,
        "count": 1,
        "max": 4,
        "spot": True,
        "disk": 200,
    },
    {"name": "cpu", "machine": "medium", "cpus": 4, "count": 2},
]
COMMON = {"kind": "cluster", "name": "cloudy", "storage": "/mnt/runs", "nodes": NODES}
CLOUDS: dict[str, dict[str, Any]] = {
    "aws": {"region": "us-west-2", "image": "ami-1"},
    "gcp": {"region": "us-central1", "zone": "us-central1-a", "project": "p-1", "image": "projects/x/y"},
    "azure": {
        "region": "westeurope",
        "project": "group",
        "image": "Canonical:ubuntu-24_04-lts:server:latest",
    },
}


def cluster(provider: str = "aws", **changes: Any) -> Cloud:
    data = {**COMMON, **CLOUDS[provider], "provider": provider, **changes}
    found = check_cluster(read(yaml.safe_dump(data), "cluster.yaml"))
    assert isinstance(found, Cloud)
    return found


def provider_of(found: Cloud) -> CloudProvider:
    return CloudProvider(found, ClusterPaths.of(found.name))
