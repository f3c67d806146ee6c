"""`algorithm:` of `kind: rl`: one section for each. The algorithms themselves are in `dlsys.rl`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dlsys.spec.rl.games import MCTS, AlphaGo, AlphaZero, MuZero
from dlsys.spec.rl.models import MBPO, MPC, DreamerV3, Genetic
from dlsys.spec.rl.offline import BC, CQL, IQL, MARWIL
from dlsys.spec.rl.policy import A2C, A3C, ACKTR, APPO, IMPALA, PPO, REINFORCE, TRPO
from dlsys.spec.rl.tabular import QLearning, QValueIteration, TDLearning, ValueIteration
from dlsys.spec.rl.value import DDPG, DQN, SAC, TD3, Rainbow

Algorithm = Annotated[
    PPO
    | TRPO
    | REINFORCE
    | A2C
    | A3C
    | ACKTR
    | IMPALA
    | APPO
    | DQN
    | Rainbow
    | SAC
    | DDPG
    | TD3
    | MBPO
    | MPC
    | DreamerV3
    | Genetic
    | BC
    | MARWIL
    | IQL
    | CQL
    | QLearning
    | QValueIteration
    | TDLearning
    | ValueIteration
    | MCTS
    | AlphaGo
    | AlphaZero
    | MuZero,
    Field(discriminator="name"),
]
