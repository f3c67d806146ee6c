"""`algorithm:` sections that search the moves of a board game."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dlsys.spec.rl.section import AlgorithmSection, Sees, Share
from dlsys.spec.section import Count, NonNegative, NonNegativeInt, Positive


class _Searching(AlgorithmSection):
    ACTIONS: ClassVar[tuple[str, ...]] = ("discrete",)
    OBSERVATIONS: ClassVar[tuple[str, ...]] = ("flat", "image")
    GAMES: ClassVar[bool] = True
    RLLIB: ClassVar[bool] = False
    SEES: ClassVar[Sees] = "plain"

    gamma: Share = 1.0
    """What an outcome is worth a move earlier: below 1, quick wins count more than late ones."""
    simulations: Count = 100
    """Of the search before each move."""


class MCTS(_Searching):
    """Monte Carlo tree search with random playouts (Kocsis and Szepesvári 2006); it learns nothing."""

    RUNNERS: ClassVar[bool] = False

    name: Literal["mcts"]
    simulations: Count = 400
    """Of the search before each move."""
    c: Positive = 1.0
    """The weight of moves that were tried seldom; outcomes lie in ±1."""
    decisive: bool = True
    """Whether tree and playouts make no other moves where one wins at once, or keeps the other side from it
    (Teytaud and Teytaud 2010). Opponents of the name `mcts` are plain UCT."""


class Learned(_Searching):
    """An agent whose network learns from games against itself."""

    c: Positive = 1.5
    """The weight of the network's policy in the search."""
    lr: Positive = 1e-3
    """The learning rate."""
    weight_decay: NonNegative = 1e-4
    """How much of the weights each update takes away, times the learning rate."""
    hidden: Count = 64
    """The channels, or the width, of each layer."""
    blocks: Annotated[NonNegativeInt, Field(le=64)] = 3
    """Residual blocks, of two layers each."""
    acting: Count | None = None
    """Simulations before each move when it is evaluated; by default `simulations`, as in its own games."""
    games: Count = 64
    """Games of an iteration, all played side by side."""
    explore: NonNegativeInt = 10
    """Moves of each game that are drawn in proportion to how often the search tried them; later ones are
    those that it tried most."""
    noise: Share = 0.25
    """The share of Dirichlet noise in the chances of moves where a search begins, while learning."""
    concentration: Positive = 1.0
    """The α of that noise: the smaller it is, the fewer moves get most of it."""
    updates: Count = 40
    """Updates of the network in an iteration."""
    batch_size: Count = 256
    """Positions of one update."""
    capacity: Count = 50_000
    """Positions that are kept; then new ones take the place of the oldest."""


class AlphaZero(Learned):
    """AlphaZero (Silver et al. 2017): the rules of the game in the search, and a network of convolutions."""

    name: Literal["alphazero"]


class AlphaGo(Learned):
    """AlphaGo (Silver et al. 2016) in its stages: a policy, and a linear one for playouts, learn a teacher's
    moves; a copy of the policy learns to win against earlier copies (REINFORCE); and a network learns the
    values of games that this copy plays, from one position of each. The search takes the first policy, and
    values positions by that network and by playouts."""

    name: Literal["alphago"]
    teacher: Count = 200
    """Simulations of the teacher's search before each move: plain `mcts` against itself."""
    supervised: Count = 12
    """Iterations that learn from the teacher's games; values are learned there too, to begin with."""
    reinforced: NonNegativeInt = 4
    """Iterations after these, each of `updates` policy gradients of `games` games. All later iterations
    learn values, each from `games` × `updates` games."""
    reinforce_lr: Positive = 1e-4
    """The learning rate of the policy gradient: where it is high, all games soon become the same."""
    mix: Share = 0.5
    """The share of the playout in the value of a position; the rest is the network's."""
    decisive: bool = True
    """Whether playouts make no other moves where one wins at once, or keeps the other side from it (Teytaud
    and Teytaud 2010)."""


class MuZero(Learned):
    """MuZero (Schrittwieser et al. 2020): the search knows no rules, but a learned model of what moves lead
    to. Legal moves are asked for where it begins, and nowhere else."""

    name: Literal["muzero"]
    hidden: Count = 128
    """The width of each layer."""
    blocks: Annotated[NonNegativeInt, Field(le=64)] = 1
    """Residual blocks of each part of the model."""
    unroll: Count = 5
    """Moves that the model is followed for in learning."""
    value_weight: Positive = 1.0
    """The weight of the errors of values and rewards in the loss."""
