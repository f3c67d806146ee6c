"""The peer of a sweep: Optuna's plain loop in one process, as its own tutorial writes it.

python optuna_loop.py --trials 200
"""

from __future__ import annotations

import argparse

import optuna
from peer_softmax import train


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=200)
    trials = parser.parse_args().trials
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: train(trial.suggest_float("lr", 1e-3, 1.0, log=True)), n_trials=trials)
    print(study.best_value)


if __name__ == "__main__":
    main()
