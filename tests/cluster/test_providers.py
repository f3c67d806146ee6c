"""Every provider is made from its ready file as `dlsys cluster` makes it, and shows what it would do."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlsys.cluster.places import ClusterPaths
from dlsys.cluster.providers import _CLASSES, provider_of
from dlsys.spec.load import load_cluster

CLUSTERS = Path(__file__).parents[2] / "cluster"
# What is in the texts that nothing but the file can have told.
SHOWN = {
    "laptop": "laptop",
    "two_nodes": "worker",
    "ssh": "/mnt/shared/dlsys/clusters/lab lab-3",
    "aws": "g5.12xlarge",
    "kuberay": "dlsys-runs",
    "slurm": "--partition=gpu",
}


@pytest.mark.parametrize("name", sorted(path.stem for path in CLUSTERS.glob("*.yaml")))
def test_a_ready_file_becomes_a_provider_that_shows_its_work(name: str, home: Path) -> None:
    provider = provider_of(load_cluster(CLUSTERS / f"{name}.yaml").cluster)
    text = "\n".join(provider.render().values())
    assert SHOWN[name] in text
    assert not home.exists(), "rendering touches nothing"
    assert not ClusterPaths.all()


def test_every_provider_has_a_ready_file() -> None:
    ready = {load_cluster(path).cluster.provider for path in CLUSTERS.glob("*.yaml")}
    # The three clouds are one class.
    assert {_CLASSES[name] for name in ready} == set(_CLASSES.values())
