"""Agents that keep a number for each state, and the file of a finite MDP. The algorithms themselves are
in `dlsys.rl.tabular`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dlsys.spec.rl.section import AlgorithmSection, Sees, Share
from dlsys.spec.section import Count, Int, NonNegative, Number, Positive, Section, Text

Rate = Annotated[Number, Field(gt=0, le=1)]


class _Planning(AlgorithmSection):
    ACTIONS: ClassVar[tuple[str, ...]] = ("discrete",)
    OBSERVATIONS: ClassVar[tuple[str, ...]] = ("table", "flat")
    PLANS: ClassVar[bool] = True
    RLLIB: ClassVar[bool] = False
    RUNNERS: ClassVar[bool] = False
    SEES: ClassVar[Sees] = "plain"

    tolerance: Positive = 1e-10
    """It has converged when no value changes by more than this in a sweep."""
    sweeps: Count = 100
    """Sweeps over all states in one iteration."""
    bins: Annotated[Int, Field(ge=2, le=1000)] = 40
    """Grid points along each axis, where observations are continuous."""


class ValueIteration(_Planning):
    """V(s) ← max over a of Σ P(s'|s,a)·(R + γ·V(s')), for all states at once (Bellman 1957). Needs an
    environment with a known model."""

    name: Literal["value-iteration"]


class QValueIteration(_Planning):
    """Q(s,a) ← Σ P(s'|s,a)·(R + γ·max over a' of Q(s',a')), for all pairs at once. Needs an environment
    with a known model."""

    name: Literal["q-value-iteration"]


class _Learning(AlgorithmSection):
    ACTIONS: ClassVar[tuple[str, ...]] = ("discrete",)
    OBSERVATIONS: ClassVar[tuple[str, ...]] = ("table",)
    RLLIB: ClassVar[bool] = False
    RUNNERS: ClassVar[bool] = False
    SEES: ClassVar[Sees] = "plain"

    lr: Rate = 0.1
    """The learning rate α: how far an estimate moves towards its target."""
    lr_decay: NonNegative = 1e-3
    """Divides the rate by 1 + lr_decay × visits so far; with 0, estimates never settle."""
    initial: Number = 0.0
    """The estimate that learning begins with; one above what can be earned makes it explore."""
    episodes: Count = 500
    """Episodes in one iteration."""


class TDLearning(_Learning):
    """V(s) ← V(s) + α·(r + γ·V(s') − V(s)): the value of acting at random, TD(0) (Sutton 1988)."""

    name: Literal["td-learning"]


class QLearning(_Learning):
    """Q(s,a) ← Q(s,a) + α·(r + γ·max over a' of Q(s',a') − Q(s,a)) (Watkins 1989)."""

    name: Literal["q-learning"]
    exploration: Literal["epsilon-greedy", "function"] = "epsilon-greedy"
    """A random action now and then, or f(Q, N) = Q + kappa/(1 + N) in place of Q, after N visits."""
    epsilon_start: Share = 1.0
    """The probability ε of a random action in the first episode."""
    epsilon_end: Share = 0.05
    """The probability ε after `epsilon_episodes`."""
    epsilon_episodes: Count = 10_000
    """Episodes over which ε moves in a straight line from its first to its last value."""
    kappa: NonNegative = 1.0
    """What the exploration function adds to an action that was never tried, in units of return; where luck
    decides much, the bonus must outlast it (30 on FrozenLake, where no return is above 1)."""


class MDPFile(Section):
    """A finite Markov decision process."""

    gamma: Share = 0.99
    """The discount γ of a reward one step later."""
    states: Annotated[tuple[Text, ...], Field(min_length=1)]
    """Their names."""
    actions: Annotated[tuple[Text, ...], Field(min_length=1)]
    """Their names."""
    terminal: tuple[Text, ...] = ()
    """The states in which an episode ends."""
    start: Text | Annotated[dict[str, Share], Field(min_length=1)]
    """The state in which episodes begin, or the probabilities of several."""
    transitions: tuple[tuple[Text, Text, Text, Share, Number], ...]
    """Rows of state, action, next state, probability and reward."""
