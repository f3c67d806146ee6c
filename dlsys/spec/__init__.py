"""The typed truth: from a file to a checked job, sweep or cluster. No torch, no Ray, no MLflow."""

from dlsys.spec.cluster.providers import Cluster
from dlsys.spec.load import Loaded, LoadedCluster, LoadedSweep, load, load_any, load_cluster
from dlsys.spec.script.load import LoadedScript
from dlsys.spec.sweep.sweep import Sweep
from dlsys.spec.train.job import TrainJob

__all__ = [
    "Cluster",
    "Loaded",
    "LoadedCluster",
    "LoadedScript",
    "LoadedSweep",
    "Sweep",
    "TrainJob",
    "load",
    "load_any",
    "load_cluster",
]
