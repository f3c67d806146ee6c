"""How long training pauses for a checkpoint of 128 MiB, against saving it in the loop."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from side_by_side import compare, report, seconds

from dlsys.train.checkpoint import CheckpointStore, Position, Saved


def main() -> None:
    warnings.simplefilter("ignore", UserWarning)  # DCP talks about running without workers
    torch.set_num_threads(1)
    model = {f"layer{i}": torch.randn(1024, 1024) for i in range(32)}
    folder = Path(tempfile.mkdtemp())
    step = [0]
    store = CheckpointStore(folder, keep=1)

    def ours() -> float:
        step[0] += 1
        saved = Saved(Position(step[0]), model, {})
        pause = seconds(lambda: store.save(saved))
        store.wait()
        return pause

    def synced(path: Path) -> None:
        with open(path, "rb") as file:
            os.fsync(file.fileno())

    def torch_save() -> None:
        torch.save(model, folder / "x.pt")
        synced(folder / "x.pt")

    def safe() -> None:
        save_file(model, folder / "x.safetensors")
        synced(folder / "x.safetensors")

    def distributed() -> None:
        dcp.save(model, checkpoint_id=str(folder / "dcp"), no_dist=True)

    work = "pause for a durable 128 MiB checkpoint"
    try:
        report(
            "checkpoint",
            [
                compare(work, "torch.save + fsync", ours, lambda: seconds(torch_save), goal="<= 0.25"),
                compare(work, "safetensors + fsync", ours, lambda: seconds(safe), goal="<= 0.5"),
                compare(work, "torch DCP", ours, lambda: seconds(distributed), goal="<= 0.25"),
            ],
        )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
