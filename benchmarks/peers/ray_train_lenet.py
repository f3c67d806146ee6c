"""The same loop as `torchrun_lenet.py`, on Ray Train as its documentation writes it.

https://docs.ray.io/en/latest/train/getting-started-pytorch.html

    python ray_train_lenet.py --steps 300 [--address HOST:PORT]
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer


def loop(config: dict[str, object]) -> None:
    sys.path.insert(0, str(config["folder"]))
    from torchrun_lenet import train

    train(int(str(config["steps"])), save_seconds=0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--address", default="local")
    arguments = parser.parse_args()
    ray.init(address=arguments.address, log_to_driver=False, logging_level=logging.ERROR)
    TorchTrainer(
        loop,
        train_loop_config={"steps": arguments.steps, "folder": str(Path(__file__).parent)},
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(storage_path=str(Path.cwd() / "ray-train")),
    ).fit()


if __name__ == "__main__":
    main()
