"""Where rows come from, and in which order which worker sees them."""

from dlsys.data.dataset import Dataset, Splits, TensorDataset, load

__all__ = ["Dataset", "Splits", "TensorDataset", "load"]
