"""Distributed training on Ray from one file, tracked in MLflow."""

__version__ = "0.1.0"
