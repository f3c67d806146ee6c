"""The engine: PyTorch only. It gets a `World` and never asks who made it."""
