"""How workers train one model together: one file a strategy."""

from dlsys.train.strategies.base import Parts, State, StepResult, Strategy

__all__ = ["Parts", "State", "StepResult", "Strategy"]
