"""Collective operations written on point-to-point messages."""

from dlsys.train.collectives.ring import RingAllReduce

__all__ = ["RingAllReduce"]
