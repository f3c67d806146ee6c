"""Exact, durable, checked checkpoints in plain formats (safetensors and JSON)."""

from dlsys.train.checkpoint.snapshot import Position, Saved
from dlsys.train.checkpoint.store import CheckpointStore

__all__ = ["CheckpointStore", "Position", "Saved"]
