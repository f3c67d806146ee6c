"""Images with others to compare, of classes that no other part has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dlsys.data import rowwise
from dlsys.data.comparisons.pairs_file import named_pairs
from dlsys.data.dataset import Batch, Chosen, Dataset, Splits, load
from dlsys.data.images.normalize import normalized
from dlsys.data.split import RowSplit
from dlsys.errors import DataError
from dlsys.spec.data import Comparisons
from dlsys.spec.rows import Shape

# Rows of which the classes are read at once, where a source does not keep them apart from the images.
_AT_ONCE = 1000


def comparisons(options: Comparisons, folder: Path) -> Splits:
    """Rows `images` float32 (1 + ways, C, H, W) and `same` float32 (ways,).

    `same` is 1 for the second image, which is another of the first one's class, and 0 for the others, which
    are of as many other classes. Which images a row has is a function of (split_seed, part, row) alone. A
    class belongs to one part: what is measured is measured on classes that nothing was learnt of.

    Raises:
        DataError: as the source of images; or there are too few classes, or none of two images in a part.
    """
    name = options.of.source
    inner = load(options.of.model_copy(update={"normalize": None}), folder)
    images = _Joined([part for part in (inner.train, inner.valid, inner.test) if part is not None])
    labels = images.labels()
    pairs, same = _given(options, images, folder)
    parts = _apart(labels, np.unique(labels[pairs]), options, name)

    chosen = {part: Chosen(images, rows) for part, rows in parts._asdict().items() if len(rows)}
    scaled = normalized(  # of the training classes, where it is measured
        Splits(
            train=chosen["train"],
            valid=chosen["valid"],
            test=chosen.get("test"),
            shape=inner.shape,
            notes=inner.notes,
            learnt={key: told for key, told in inner.learnt.items() if key != "target"},
        ),
        options.of.normalize,
        name,
    )
    made: dict[str, Dataset] = {}
    for number, (part, rows) in enumerate(chosen.items()):
        seed = 3 * options.split_seed + number  # of its own for each part
        draw = Draw(labels[rows.chosen], options.ways, seed=seed, name=f"{name}: {part}")
        count = options.rows if part == "train" else options.measured_rows
        made[part] = _Compared(rows, count, draw, scaled.scaling)
    if len(pairs):
        made["test"] = _Compared(images, len(pairs), partial(_taken, pairs, same), scaled.scaling)
    sizes = inner.shape.row["image"]
    counts = ", ".join(f"{len(np.unique(labels[rows]))} for {part}" for part, rows in parts._asdict().items())
    return Splits(
        train=made["train"],
        valid=made["valid"],
        test=made.get("test"),
        shape=Shape(row={"images": (1 + options.ways, *sizes), "same": (options.ways,)}),
        notes=(*scaled.notes, f"{name}: classes: {counts}"),
        learnt=scaled.learnt,
    )


def _given(options: Comparisons, images: _Joined, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of a file, or none: row numbers int64 (pairs, 2), and whether each is of one class."""
    if not options.pairs:
        return np.empty((0, 2), np.int64), np.empty(0, bool)
    return named_pairs(options.pairs, folder, images.paths(), options.of.source)


def _apart(labels: np.ndarray, tested: np.ndarray, options: Comparisons, name: str) -> RowSplit:
    """Rows by part, every class in one of them. Where classes are `tested`, they are left out: the test is
    made of them, and of no others.

    Raises:
        DataError: there are fewer classes than the parts need.
    """
    classes = np.setdiff1d(labels, tested)
    ways, share = options.ways, 0.0 if len(tested) else options.test
    n_valid = max(ways, round(options.valid * len(classes)))
    n_test = max(ways, round(share * len(classes))) if share else 0
    if n_valid + n_test + ways > len(classes):
        raise DataError(
            f"{name}: {len(classes)} classes are too few: {n_valid} for validation and {n_test} for the test "
            f"leave {max(0, len(classes) - n_valid - n_test)} to train on; a part needs data.ways = {ways}",
            hint="lower data.valid and data.test (0 makes no test) or data.ways",
        )
    order = np.random.default_rng(options.split_seed).permutation(classes)
    valid, test, train = np.split(order, [n_valid, n_valid + n_test])
    return RowSplit(*(np.flatnonzero(np.isin(labels, part)) for part in (train, valid, test)))


class Draw:
    """Decides which images a row has.

    Args:
        labels: the class of each image of a part, int64 (images,).
        ways: images that the first one is held against.
        seed: decides all.
        name: the part, as messages say it.

    Raises:
        DataError: no class has two images.
    """

    def __init__(self, labels: np.ndarray, ways: int, *, seed: int, name: str) -> None:
        self._ways, self._seed = ways, seed
        _, self._classes, self._counts = np.unique(labels, return_inverse=True, return_counts=True)
        self._sorted = np.argsort(self._classes, kind="stable")
        self._starts = np.cumsum(self._counts) - self._counts
        firsts = np.flatnonzero(self._counts[self._classes[self._sorted]] > 1)
        if not len(firsts):
            raise DataError(f"{name}: no class has two images, which could be compared")
        # Places in `_sorted`: every image is first in equally many rows, give or take one.
        self._firsts = np.random.default_rng(seed).permutation(firsts)

    def __call__(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Image numbers int64 (rows, 1 + ways), and which are of the first one's class, bool (rows, ways)."""
        draws = rowwise.uniform(rowwise.keys(self._seed, 0, rows), 2 * self._ways).double().numpy()
        first = self._firsts[rows % len(self._firsts)]
        own = self._classes[self._sorted[first]]
        # Another place among those of its class: one of the later ones moves up by one.
        second = self._starts[own] + (draws[:, 0] * (self._counts[own] - 1)).astype(np.int64)
        second += second >= first
        places, taken = [first, second], own[:, None]
        for index in range(1, self._ways):
            other = (draws[:, index] * (len(self._counts) - index)).astype(np.int64)
            for before in np.sort(taken, axis=1).T:
                other += other >= before
            taken = np.column_stack([taken, other])
            inside = (draws[:, self._ways + index] * self._counts[other]).astype(np.int64)
            places.append(self._starts[other] + inside)
        same = np.arange(self._ways) == 0
        return self._sorted[np.column_stack(places)], np.broadcast_to(same, (len(rows), self._ways))


def _taken(pairs: np.ndarray, same: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `Draw` gives them, of pairs that are known."""
    return pairs[rows], same[rows, None]


@dataclass(frozen=True)
class _Compared:
    """So many rows of images that `choose` tells by row numbers."""

    images: Dataset
    count: int
    choose: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    scaling: Callable[[Batch], Batch] | None

    def __len__(self) -> int:
        return self.count

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        numbers, same = self.choose(rows)
        found = {"image": self.images.batch(numbers.reshape(-1))["image"]}
        if self.scaling:
            found = self.scaling(found)
        return {
            "images": found["image"].view(*numbers.shape, *found["image"].shape[1:]),
            "same": torch.from_numpy(same.astype(np.float32, order="C")),
        }


class _Joined:
    """The rows of several data sets, one after another."""

    def __init__(self, parts: Sequence[Dataset]) -> None:
        self._parts = parts
        self._edges = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return int(self._edges[-1])

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        of = np.searchsorted(self._edges, rows, side="right") - 1
        found: dict[str, Tensor] = {}
        for number in np.unique(of):
            places = np.flatnonzero(of == number)
            for name, tensor in self._parts[number].batch(rows[places] - self._edges[number]).items():
                whole = found.setdefault(name, tensor.new_empty(len(rows), *tensor.shape[1:]))
                whole[torch.from_numpy(places)] = tensor
        return found

    def labels(self) -> np.ndarray:
        """int64 (rows,)."""
        return np.concatenate([_labels(part) for part in self._parts])

    def paths(self) -> list[Path]:
        """The files of image folders."""
        return [path for part in self._parts for path in getattr(part, "paths")]  # noqa: B009 - of one kind


def _labels(rows: Dataset) -> np.ndarray:
    if (kept := getattr(rows, "labels", None)) is not None:  # images need not be decoded for them
        return np.asarray(kept)
    starts = range(0, len(rows), _AT_ONCE)
    numbers = (np.arange(start, min(start + _AT_ONCE, len(rows))) for start in starts)
    return np.concatenate([rows.batch(some)["label"].numpy() for some in numbers])
