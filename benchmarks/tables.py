"""Rows/s of a Parquet table into the loop, shuffled, against Ray Data and Hugging Face's `datasets`.

    python benchmarks/tables.py [--rows 100000] [--runs 5]

Each side hands batches of 1,024 rows of 20 columns to the loop as float32 tensors, one epoch in an order of
its own, from a second start: what dlsys and `datasets` keep on disk is there. dlsys goes through its loader,
with keys for each row, and goes on exactly in the middle of an epoch, which is checked; Ray Data shuffles
within a buffer of ten batches, `datasets` through torch's sampler, in whole batches.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch
from side_by_side import compare, report

from dlsys.data import load
from dlsys.data.features import files
from dlsys.data.loader import Loader
from dlsys.data.order import Order
from dlsys.spec.data import ParquetFile

_COLUMNS = 20
_BATCH = 1024


def write(path: Path, rows: int) -> None:
    generator = np.random.default_rng(0)
    columns = {f"x{i}": generator.standard_normal(rows).astype(np.float32) for i in range(_COLUMNS)}
    label = (columns["x0"] + columns["x1"] > 0).astype(np.int64)
    pa.parquet.write_table(pa.table({**columns, "label": label}), path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = os.environ["HF_HOME"] = name
        os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
        write(folder / "rows.parquet", asked.rows)
        files.LARGE = 0  # so that it is kept and mapped, as a large one is
        loader = ours_of(folder)
        check_resume(loader)
        peers = {"Ray Data": ray_of(folder), "Hugging Face datasets": hugging_face_of(folder)}
        rows = [
            compare(
                "rows/s from Parquet into the loop",
                peer,
                lambda: rate(loader),
                theirs,
                goal=">= 2" if peer == "Ray Data" else ">= 1.5",
                unit="/",
                runs=asked.runs,
            )
            for peer, theirs in peers.items()
        ]
    report("tables", rows)


def ours_of(folder: Path) -> Loader:
    section = ParquetFile(source="parquet", path="rows.parquet", target="label", valid=0.0001, test=0.0)
    train = load(section, folder).train
    return Loader(train, Order(len(train), _BATCH, "shuffled", seed=0))


def rate(loader: Loader) -> float:
    epoch = int(time.time() * 1e6) % 2**31  # another order each time
    began, count = time.perf_counter(), 0
    for step in loader.epoch(epoch):
        count += step.rows
    return count / (time.perf_counter() - began)


def check_resume(loader: Loader) -> None:
    """An epoch that is taken up in its middle gives the same tensors, bit for bit."""
    whole = [step.micros[0].batch for step in loader.epoch(3)]
    half = len(whole) // 2
    for before, after in zip(whole[half:], loader.epoch(3, start=half), strict=True):
        assert all(torch.equal(before[name], after.micros[0].batch[name]) for name in before)


def ray_of(folder: Path):  # type: ignore[no-untyped-def]
    import ray

    ray.init(num_cpus=os.cpu_count(), log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    table = ray.data.read_parquet(str(folder / "rows.parquet"))

    def theirs() -> float:
        began, count = time.perf_counter(), 0
        for batch in table.iter_torch_batches(batch_size=_BATCH, local_shuffle_buffer_size=10 * _BATCH):
            features = torch.stack([batch[f"x{i}"] for i in range(_COLUMNS)], dim=1)
            count += len(features)
        return count / (time.perf_counter() - began)

    return theirs


def hugging_face_of(folder: Path):  # type: ignore[no-untyped-def]
    import datasets
    from torch.utils.data import BatchSampler, DataLoader, RandomSampler

    datasets.disable_progress_bars()
    table = datasets.load_dataset("parquet", data_files=str(folder / "rows.parquet"), split="train")
    table = table.with_format("torch")

    def theirs() -> float:
        # Whole batches are taken from the table: with `shuffle=True` each row would be a mapping of its own.
        batches = BatchSampler(RandomSampler(table), _BATCH, drop_last=False)
        began, count = time.perf_counter(), 0
        for batch in DataLoader(table, sampler=batches, batch_size=None):
            features = torch.stack([batch[f"x{i}"] for i in range(_COLUMNS)], dim=1)
            count += len(features)
        return count / (time.perf_counter() - began)

    return theirs


if __name__ == "__main__":
    main()
