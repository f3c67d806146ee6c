"""What a run leaves to look at: a workload's samples, and what its classes were taken for."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dlsys.data.loader import Loader
from dlsys.zoo.workload import Sample, Workload

if TYPE_CHECKING:  # a run that leaves no pictures needs neither
    from PIL import Image


# Rows of which a workload may draw what it makes of them.
_ROWS = 16


def shows(workload: Workload) -> bool:
    """Whether a workload shows anything of a trained model."""
    kind = type(workload)
    return kind.samples is not Workload.samples or kind.pictures is not Workload.pictures


def write_samples(
    workload: Workload, weights: dict[str, Tensor], seed: int, loader: Loader, folder: Path
) -> None:
    """Writes what a workload shows of a trained model, on the CPU.

    Args:
        weights: of the plain model, whole.
        seed: the job's.
        loader: of rows that were not learnt.
        folder: gets `.png`, `.txt` and `.csv` files.
    """
    model = workload.build()
    model.load_state_dict(weights)
    model.eval()
    with torch.no_grad():
        samples = dict(workload.samples(model, seed))
        if type(workload).pictures is not Workload.pictures:
            plain, batch = loader.first(_ROWS)
            samples |= workload.pictures(model, batch, next(iter(plain.values())))
    write(samples, folder)


def varied_rows(loader: Loader) -> Tensor:
    """Some training images as they were varied in the first epoch, with their boxes: (N, C, H, W) in 0…1. Of
    clips the frames stand side by side."""
    batch, _ = loader.first(_ROWS)
    if "clip" in batch:
        return batch["clip"].clamp(0, 1).movedim(1, 3).flatten(3)
    image = batch["image"].clamp(0, 1)
    if "boxes" not in batch:
        return image
    from dlsys.zoo.average_precision import Detections, Objects
    from dlsys.zoo.drawing import outlined

    nothing = Detections(batch["boxes"][:, :0], batch["boxes"][:, :0, 0], batch["labels"][:, :0])
    return outlined(image, nothing, 1.0, truth=Objects.of(batch))


def write(samples: Mapping[str, Sample], folder: Path) -> None:
    """Writes what is to be looked at, each in the form of its kind."""
    for name, sample in samples.items():
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / os.path.basename(name)
        if isinstance(sample, Tensor):
            _grid(sample).save(target.with_suffix(".png"))
        elif isinstance(sample, str):
            (target if target.suffix == ".json" else target.with_suffix(".txt")).write_text(sample)
        elif sample:
            with open(target.with_suffix(".csv"), "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, sample[0])
                writer.writeheader()
                writer.writerows(sample)


def _grid(images: Tensor) -> Image.Image:
    """Images (N, C, H, W) in 0…1 as one picture, in about a square."""
    from PIL import Image

    if images.shape[1] not in (1, 3):  # more than a picture has: what they have in common
        images = images.mean(1, keepdim=True)
    count, channels, height, width = images.shape
    columns = max(1, int(count**0.5))
    rows = -(-count // columns)
    sheet = torch.zeros(channels, rows * (height + 1), columns * (width + 1))
    for index, image in enumerate(images.cpu()):
        y, x = index // columns * (height + 1), index % columns * (width + 1)
        sheet[:, y : y + height, x : x + width] = image
    pixels = (sheet.clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)


def write_confusion(
    table: Tensor, classes: Sequence[str], split: str, folder: Path, *, of: str = "rows"
) -> None:
    """Writes how many rows (or pixels) of each class were taken for which, as a table and as a picture.

    Args:
        table: (classes, classes): true ones down, what they were taken for across.
        split: which rows, for the title.
        of: what is counted; where there are too many to read, the picture shows shares.
        folder: gets `confusion.csv` and `confusion.png`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    counts = table.long().tolist()
    with open(folder / "confusion.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["true \\ taken for", *classes])
        writer.writerows([name, *row] for name, row in zip(classes, counts, strict=True))
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = 3 + 0.42 * len(classes)
    figure = Figure(figsize=(size + 0.5, size), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    shares, most = table / table.sum(1, keepdim=True).clamp(min=1), int(table.max())
    axis.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    names = [name if len(name) <= 20 else name[:19] + "…" for name in classes]
    axis.set_xticks(range(len(classes)), names, rotation=45, ha="right")
    axis.set_yticks(range(len(classes)), names)
    axis.set_xlabel("taken for")
    axis.set_ylabel("true class")
    for row, column in ((r, c) for r in range(len(classes)) for c in range(len(classes)) if counts[r][c]):
        color = "white" if shares[row, column] > 0.5 else "black"
        shown = counts[row][column] if most < 100_000 else f"{shares[row, column]:.3f}"
        axis.text(column, row, shown, ha="center", va="center", color=color, fontsize=8)
    axis.set_title(f"{split}: {int(table.sum()):,} {of}", fontsize=10)
    figure.savefig(folder / "confusion.png", dpi=120)
