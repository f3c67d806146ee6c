"""The typed truth: from a file to a checked job. No torch, no Ray, no MLflow."""

from dlsys.spec.job import TrainJob
from dlsys.spec.load import Loaded, load

__all__ = ["Loaded", "TrainJob", "load"]
