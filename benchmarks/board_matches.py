"""Agents of board games against each other.

    python benchmarks/board_matches.py PLAYER PLAYER [--games 200] [--opening 2]

    python benchmarks/board_matches.py RUN/checkpoints/step-0000001600 RUN/checkpoints/step-0000064000
    python benchmarks/board_matches.py RUN/checkpoints/step-0000020000 RUN/checkpoints/step-0000020000,mix=0

A player is a checkpoint in the folder of its run, and changes of `algorithm:`, if any. No search has noise;
each opening of a few random moves is played twice, with sides changed. One thread.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from dlsys.rl.engine import build
from dlsys.rl.games.agent import GameAgent
from dlsys.rl.plain import decode
from dlsys.spec.load import load
from dlsys.spec.rl.job import RLJob
from dlsys.train.checkpoint.store import read


def player(told: str) -> GameAgent:
    """An agent with a checkpoint's weights."""
    folder, *changes = told.split(",")
    path = Path(folder)
    job = load(path.parents[1] / "job.yaml").job
    assert isinstance(job, RLJob)
    changed = {name: yaml.safe_load(value) for name, value in (each.split("=") for each in changes)}
    agent: Any = build(job.model_copy(update={"algorithm": job.algorithm.model_copy(update=changed)}))
    agent.load(decode(read(path).optimizers["agent"]))
    assert isinstance(agent, GameAgent), f"{told} learns no board game"
    return agent


def match(first: GameAgent, second: GameAgent, pairs: int, opening: int, seed: int) -> np.ndarray:
    """Outcomes to the first player of 2 x `pairs` games: 1, 0 or -1."""
    game, random = first.game, np.random.default_rng(seed)
    rows = game.start(pairs)
    for _ in range(opening):  # too few to end a game
        actions = np.array([random.choice(np.flatnonzero(each)) for each in game.sensible(rows)])
        rows, _, _ = game.play(rows, actions)
    rows = np.concatenate([rows, rows])
    playing, turn, outcomes = np.arange(2 * pairs), np.repeat([True, False], pairs), np.zeros(2 * pairs)
    while len(playing):
        actions = np.empty(len(playing), np.int64)
        for agent, own in ((first, turn), (second, ~turn)):
            if own.any():
                actions[own] = agent.think(rows[own]).argmax(1)
        rows, over, outcome = game.play(rows, actions)
        outcomes[playing[over]] = np.where(turn, outcome, -outcome)[over]
        rows, playing, turn = rows[~over], playing[~over], ~turn[~over]
        print(f"{len(playing)} games go on", end="  \r", file=sys.stderr)
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("players", nargs=2, metavar="PLAYER")
    parser.add_argument("--games", type=int, default=200)
    parser.add_argument("--opening", type=int, default=2, help="random moves")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    first, second = map(player, arguments.players)
    found = match(first, second, arguments.games // 2, arguments.opening, arguments.seed)
    won, drawn = (found > 0).mean(), (found == 0).mean()
    print(f"first wins {won:.1%}, draws {drawn:.1%}, loses {1 - won - drawn:.1%} of {len(found)} games")


if __name__ == "__main__":
    main()
