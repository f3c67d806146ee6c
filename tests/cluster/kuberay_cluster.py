"""What the tests of KubeRay share: a cluster file that asks for everything."""

from __future__ import annotations

from typing import Any

import yaml

from dlsys.cluster.kuberay import KubeRayProvider
from dlsys.cluster.places import ClusterPaths
from dlsys.spec.cluster.providers import KubeRay
from dlsys.spec.load import check_cluster
from dlsys.spec.yaml import read

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
