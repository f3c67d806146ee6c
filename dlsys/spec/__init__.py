"""The typed truth: from a file to a checked job or sweep. No torch, no Ray, no MLflow."""

from dlsys.spec.job import TrainJob
from dlsys.spec.load import Loaded, LoadedSweep, load, load_any
from dlsys.spec.sweep import Sweep

__all__ = ["Loaded", "LoadedSweep", "Sweep", "TrainJob", "load", "load_any"]
