"""Update rules, by the names that `optimizer:` knows."""

from dlsys.train.optim.build import build
from dlsys.train.optim.yogi import Yogi

__all__ = ["Yogi", "build"]
