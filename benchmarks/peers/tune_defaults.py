"""The peer of a sweep: raw Ray Tune with its defaults, as its own getting-started page writes it.

python tune_defaults.py --trials 20
"""

from __future__ import annotations

import argparse
import tempfile

from peer_softmax import train
from ray import tune


def trainable(config: dict[str, float]) -> None:
    tune.report({"accuracy": train(config["lr"])})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=20)
    trials = parser.parse_args().trials
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1}),
            param_space={"lr": tune.loguniform(1e-3, 1.0)},
            tune_config=tune.TuneConfig(metric="accuracy", mode="max", num_samples=trials),
            run_config=tune.RunConfig(storage_path=folder),
        )
        print(tuner.fit().get_best_result().metrics["accuracy"])


if __name__ == "__main__":
    main()
