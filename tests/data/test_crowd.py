"""Boxes of several people as one set: hand-worked, and held against the truth of simulated people."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dlsys.cli.data import merge
from dlsys.data.images.crowd import Boxes, agreement, iou, merged
from dlsys.errors import DataError, UsageError


def boxes(*places: tuple[float, float, float, float], labels: tuple[int, ...] | None = None) -> Boxes:
    told = np.array(labels if labels is not None else [0] * len(places), dtype=np.int64)
    return Boxes(np.array(places, dtype=np.float64).reshape(-1, 4), told)


SQUARE = (10.0, 10.0, 20.0, 20.0)
FAR = (50.0, 50.0, 60.0, 60.0)


def test_overlaps_are_those_of_hand() -> None:
    found = iou(np.array([SQUARE]), np.array([(15.0, 10, 25, 20), FAR, SQUARE, (12.0, 12, 12, 12)]))
    assert found[0].tolist() == pytest.approx([50 / 150, 0, 1, 0])


def test_edges_are_medians_and_classes_votes() -> None:
    places = ((10, 10, 20, 20), (11, 10, 21, 20), (10.5, 9, 23, 20))
    (found,), _ = merged([[boxes(place) for place in places]])
    assert found.places.tolist() == [[10.5, 10, 21, 20]]
    (found,), quality = merged([[boxes(SQUARE, labels=(label,)) for label in (1, 2, 2)]])
    assert found.labels.tolist() == [2]
    assert quality.tolist() == [0, 1, 1]


def test_what_one_of_three_drew_is_not_there_and_what_two_drew_is() -> None:
    (found,), quality = merged([[boxes(SQUARE, FAR), boxes(SQUARE), boxes()]])
    assert found.places.tolist() == [list(SQUARE)]
    # One box of 2 and 1, one of 1 and 1, none of 0 and 1.
    assert quality.tolist() == pytest.approx([2 / 3, 1, 0])


def test_nobody_draws_two_boxes_of_one_object() -> None:
    near = (11.0, 10.0, 21.0, 20.0)
    (found,), _ = merged([[boxes(SQUARE, near), boxes(SQUARE, near), boxes(SQUARE, near)]])
    assert sorted(found.places.tolist()) == [list(SQUARE), list(near)]


def test_images_without_boxes_and_people_without_agreement() -> None:
    found, quality = merged([[boxes(), boxes()]])
    assert len(found[0].labels) == 0
    assert quality.tolist() == [1, 1]
    found, quality = merged([[boxes(SQUARE), boxes(FAR), boxes((80, 80, 90, 90))]])
    assert len(found[0].labels) == 0
    assert quality.tolist() == [0, 0, 0]


def scene(generator: np.random.Generator) -> Boxes:
    count = generator.integers(1, 6)
    corner, side = generator.uniform(0, 200, (count, 2)), generator.uniform(20, 60, (count, 2))
    return Boxes(np.hstack([corner, corner + side]), generator.integers(4, size=count))


def drawn(truth: Boxes, noise: float, generator: np.random.Generator) -> Boxes:
    """As somebody draws: edges beside, objects missed, some that are not there, some of the wrong class."""
    seen = generator.random(len(truth.labels)) > 0.1
    places = truth.places[seen] + noise * generator.standard_normal((seen.sum(), 4))
    wrong = generator.random(seen.sum()) < 0.08
    labels = np.where(wrong, generator.integers(4, size=seen.sum()), truth.labels[seen])
    if generator.random() < 0.15:
        corner = generator.uniform(0, 200, 2)
        places = np.vstack([places, np.hstack([corner, corner + 30])])
        labels = np.append(labels, 0)
    return Boxes(places, labels)


@pytest.mark.parametrize("seed", range(5))
def test_people_together_are_better_than_each(seed: int) -> None:
    generator = np.random.default_rng(seed)
    truth = [scene(generator) for _ in range(60)]
    noises = (1.5, 3.0, 6.0)
    people = [[drawn(image, noise, generator) for noise in noises] for image in truth]
    found, fits = merged(people)
    alone = [agreement([image[one] for image in people], truth) for one in range(3)]
    together = agreement(found, truth)
    assert together > np.mean(alone) + 0.05
    assert together > max(alone)
    assert fits.argmin() == np.argmin(alone), "agreement tells who draws badly"


def coco(folder: Path, name: str, *places: tuple[float, float, float, float], images: int = 2) -> str:
    told = {
        "images": [{"id": n, "file_name": f"{n}.jpg"} for n in range(images)],
        "categories": [{"id": 7, "name": "cat"}],
        "annotations": [
            {"id": n + 1, "image_id": 1, "category_id": 7, "bbox": list(place)}
            for n, place in enumerate(places)
        ],
    }
    (folder / name).write_text(json.dumps(told))
    return name


def test_files_become_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [
        coco(tmp_path, "a.json", (10, 10, 10, 10)),
        coco(tmp_path, "b.json", (11, 10, 10, 10), (50, 50, 10, 10)),
        coco(tmp_path, "c.json", (10, 11, 12, 10)),
    ]
    merge([*map(Path, names)], Path("all.json"))
    said = capsys.readouterr()
    assert said.err == "all.json: 1 boxes in 2 images\n"
    assert [line.split()[:2] for line in said.out.splitlines()[1:]] == [
        ["a.json", "1"],
        ["b.json", "2"],
        ["c.json", "1"],
    ]
    (only,) = json.loads(Path("all.json").read_text())["annotations"]
    assert (only["image_id"], only["category_id"], only["bbox"]) == (1, 7, [10, 10, 11, 10])
    other = coco(tmp_path, "other.json", images=3)
    with pytest.raises(DataError, match=r"other\.json: has other images than a\.json"):
        merge([Path("a.json"), Path(other)], Path("x.json"))
    with pytest.raises(UsageError, match=r"a\.json: is of one person alone"):
        merge([Path("a.json")], Path("x.json"))
    assert not Path("x.json").exists()
