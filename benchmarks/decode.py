"""Rows/s of a folder of JPEG files into the loop, decoded by processes, by none, and by torch's `DataLoader`.

    python benchmarks/decode.py [--pictures 6000] [--runs 5]

The pictures, 320 × 240, are cut at random from scikit-learn's two photographs, and become squares of 128.
The first comparisons have nothing to do with a batch but to take it, so that decoding is the limit; the peer
has torchvision's `Resize` and `CenterCrop`, and as many processes, in batches of the same size. An epoch
takes seconds, as a small folder's does: the start of the processes is a part of it, but not what is measured.

The last ones train, and tell which share of a step waits for its batch. Rows are slow there because they wait
(a disk, a network), 2.2 times as long for a batch as a step takes to compute: a thread that makes batches
ahead leaves more than half of each step waiting, and two processes keep up but for the last tenth.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import sklearn
import torch
from PIL import Image
from side_by_side import Row, compare, report
from torch import nn
from torch.utils.data import DataLoader

from dlsys.data import Dataset, TensorDataset, load
from dlsys.data.loader import Loader
from dlsys.data.makers import made_by
from dlsys.data.order import Order
from dlsys.own.operators import with_operators
from dlsys.spec import yaml
from dlsys.spec.data import ImageFolder
from dlsys.spec.load import check
from dlsys.train.checkpoint import CheckpointStore
from dlsys.train.engine import Surroundings, run_worker
from dlsys.train.world import World

_BATCH, _SIZE, _PROCESSES = 32, 128, 2
_STEPS = 60
_WAIT = "DLSYS_BENCH_WAIT"  # seconds

_JOB = """
kind: train
name: decode
workload: "decode:network"
data: {source: "decode:slow_rows", classes: 10, valid: 0.001, test: 0.0}
batch_size: 512
optimizer: {name: sgd, lr: 0.01}
stop: {epochs: 1}
tracking: {log_every: 1}
"""


def write(folder: Path, pictures: int) -> None:
    generator = np.random.default_rng(0)
    photographs = Path(sklearn.__file__).parent / "datasets" / "images"
    for name in ("china", "flower"):
        (folder / name).mkdir(parents=True)
        with Image.open(photographs / f"{name}.jpg") as photograph:
            width, height = photograph.size
            for number in range(pictures // 2):
                left, top = generator.integers(width - 320), generator.integers(height - 240)
                cut = photograph.crop((left, top, left + 320, top + 240))
                cut.save(folder / name / f"{number}.jpg", quality=90)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=6000)
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "pictures", asked.pictures)
        pictures = pictures_of(folder)
        two = f"{_PROCESSES} processes"
        rows = [
            compare(
                f"JPEG into the loop, rows/s, {two}",
                peer,
                lambda: rate(pictures, _PROCESSES),
                theirs,
                goal=goal,
                unit="/",
                runs=asked.runs,
            )
            for peer, theirs, goal in (
                ("data.workers: 0", lambda: rate(pictures, 0), ">= 1.7"),
                (f"DataLoader, {two}", torchvision_of(folder), ">= 1"),
            )
        ]
        rows += waits(asked.runs)
    report("decode", rows)


def pictures_of(folder: Path) -> Dataset:
    section = ImageFolder(source="image-folder", path="pictures", size=_SIZE, valid=0.001, test=0.0)
    return load(section, folder).train


def rate(rows: Dataset, workers: int) -> float:
    """Rows/s of an epoch, of which the start of the processes is a part."""
    loader = Loader(rows, Order(len(rows), _BATCH, "shuffled", seed=0))
    began = time.perf_counter()
    with made_by({"train": loader}, workers=workers, prefetch=0):
        count = sum(len(step.micros[0].batch["image"]) for step in loader.epoch(0))
    return count / (time.perf_counter() - began)


def torchvision_of(folder: Path) -> Callable[[], float]:
    def rows():  # type: ignore[no-untyped-def]
        from torchvision import transforms
        from torchvision.datasets import ImageFolder as Folder

        steps = [transforms.Resize(_SIZE), transforms.CenterCrop(_SIZE), transforms.ToTensor()]
        return Folder(str(folder / "pictures"), transforms.Compose(steps))

    found = with_operators("torchvision", rows)

    def theirs() -> float:
        began = time.perf_counter()
        batches = DataLoader(found, _BATCH, shuffle=True, num_workers=_PROCESSES)
        count = sum(len(image) for image, _ in batches)
        return count / (time.perf_counter() - began)

    return theirs


class SlowRows(TensorDataset):
    """Rows that come after a while, together."""

    def batch(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        time.sleep(float(os.environ[_WAIT]))
        return super().batch(rows)


def slow_rows() -> TensorDataset:
    return SlowRows({"features": torch.rand(_STEPS * 512, 256), "label": torch.arange(_STEPS * 512) % 10})


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 10))


@dataclass
class Figures:
    """A recorder that keeps what each step took."""

    steps: list[tuple[float, float]] = field(default_factory=list)

    def metrics(self, step: int, values: dict[str, float]) -> None:
        if "perf/step_seconds" in values:
            self.steps.append((values["perf/data_seconds"], values["perf/step_seconds"]))

    def note(self, text: str) -> None:
        """There is nothing to tell."""


def trained(wait: float, **data: int) -> tuple[float, float]:
    """Seconds of a step that wait for its batch, and all of it: means over a run but for its first steps."""
    os.environ[_WAIT] = str(wait)
    job = check(yaml.read(_JOB, "decode.yaml"))
    job = job.model_copy(update={"data": job.data.model_copy(update=data)})
    with tempfile.TemporaryDirectory() as name:
        figures = Figures()
        store = CheckpointStore(Path(name), keep=1)
        run_worker(job, World(), Surroundings(Path(name), figures, store, Path(name), tested=False))
    waited, took = zip(*figures.steps[10:], strict=True)
    return statistics.fmean(waited), statistics.fmean(took)


def waits(runs: int) -> list[Row]:
    waited, took = trained(0.0)
    wait = 2.2 * (took - waited)
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(runs):
        found.setdefault("one thread", []).append(trained(wait, prefetch=2))
        found.setdefault("two processes", []).append(trained(wait, workers=2))
    rows = []
    for who, goal in (("one thread", ">= 0.5"), ("two processes", "<= 0.2")):
        ratios = [waited / took for waited, took in found[who]]
        rows.append(
            Row(
                f"waiting for slow rows, {who}",
                "the whole step",
                statistics.median(waited for waited, _ in found[who]),
                statistics.median(took for _, took in found[who]),
                statistics.median(ratios),
                (min(ratios), max(ratios)),
                "s",
                goal,
                os.getloadavg()[0],
            )
        )
    return rows


if __name__ == "__main__":
    main()
