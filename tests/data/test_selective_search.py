"""Selective search: regions, how they grow together, and that what was found is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dlsys.data import load
from dlsys.data.images import proposals as kept
from dlsys.data.images import selective_search as search
from dlsys.spec.data import Shapes
from dlsys.zoo.layers.boxes import iou


def painted() -> np.ndarray:
    """A red square with a bright red core, a blue bar, and grey: two things, one of two parts."""
    image = np.full((40, 48, 3), 120, dtype=np.uint8)
    image[4:20, 6:22] = (150, 20, 20)
    image[9:15, 11:17] = (200, 20, 20)
    image[28:34, 10:44] = (20, 20, 220)
    return image


def test_plain_areas_are_the_regions_to_begin_with() -> None:
    labels = search._oversegmented(painted().astype(float), 50.0)
    inside = [labels[1, 1], labels[5, 7], labels[12, 14], labels[31, 30]]
    assert len(set(inside)) == 4
    assert (np.bincount(labels.ravel()) >= search._SMALLEST).all()


def test_a_large_scale_makes_large_regions() -> None:
    noisy = np.random.default_rng(0).uniform(0, 60, (24, 24, 3))
    counts = [search._oversegmented(noisy, scale).max() + 1 for scale in (1.0, 50.0, 1e9)]
    assert counts[0] > counts[1] > counts[2] == 1


def test_what_is_alike_grows_together_first() -> None:
    pixels = painted().astype(float)
    # Four regions exactly: the ground, the square's rim and its core, and the bar.
    labels = np.zeros((40, 48), dtype=int)
    labels[4:20, 6:22], labels[9:15, 11:17], labels[28:34, 10:44] = 1, 2, 3
    boxes = [tuple(box) for box in search._grown(pixels, labels)]
    assert len(boxes) == 4 + 3
    assert boxes[0] == (0, 0, 48, 40)
    # Those of the regions themselves come last, and of what grew the square before all.
    assert boxes[-4:] == [(10, 28, 44, 34), (11, 9, 17, 15), (6, 4, 22, 20), (0, 0, 48, 40)]
    assert boxes[-5] == (6, 4, 22, 20)


def test_an_image_proposes_its_things_once_each_and_no_more_than_asked() -> None:
    found = search.selective_search(painted(), 200)
    assert found.dtype == np.float32
    assert len(np.unique(found, axis=0)) == len(found)
    things = torch.tensor([[6.0, 4.0, 22.0, 20.0], [10.0, 28.0, 44.0, 34.0]])
    assert (iou(things, torch.from_numpy(found)).amax(1) > 0.8).all()
    assert np.array_equal(search.selective_search(painted(), 3), found[:3])
    plain = search.selective_search(np.zeros((16, 20, 1), dtype=np.uint8), 200)
    assert plain.tolist() == [[0, 0, 20, 16]]


def shapes(rows: int) -> Shapes:
    return Shapes(source="shapes", wanted="proposals", rows=rows)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_200_proposals_overlap_nearly_all_shapes_by_half() -> None:
    splits = load(shapes(60), Path())
    batch = splits.train.batch(np.arange(len(splits.train)))
    there = batch["labels"] >= 0
    found = iou(batch["boxes"], batch["proposals"]).amax(2)[there] >= 0.5
    assert splits.shape.row["proposals"] == (200, 4)
    assert found.double().mean() > 0.95


def test_an_image_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(shapes(10), Path()).train.batch(np.arange(3))
    monkeypatch.setattr(kept, "selective_search", lambda *_: pytest.fail("it was searched again"))
    again = load(shapes(10), Path()).train.batch(np.arange(3))
    assert torch.equal(first["proposals"], again["proposals"])
    monkeypatch.undo()
    other = load(shapes(12), Path())
    assert len(other.train) == 10
