"""The typed truth: from a file to a checked job, sweep or cluster. No torch, no Ray, no MLflow."""

from dlsys.spec.cluster import Cluster
from dlsys.spec.job import TrainJob
from dlsys.spec.load import Loaded, LoadedCluster, LoadedSweep, load, load_any, load_cluster
from dlsys.spec.sweep import Sweep

__all__ = [
    "Cluster",
    "Loaded",
    "LoadedCluster",
    "LoadedSweep",
    "Sweep",
    "TrainJob",
    "load",
    "load_any",
    "load_cluster",
]
