from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from dlsys.data import Dataset, Splits, load
from dlsys.data.comparisons.comparisons import Draw
from dlsys.errors import DataError
from dlsys.spec.data import Comparisons

FACES = {"source": "image-folder", "path": "people", "size": 8, "channels": 1}


def read(folder: Path, **options: Any) -> Splits:
    given = {"source": "comparisons", "of": FACES, "rows": 60, "measured_rows": 40, **options}
    return load(Comparisons.model_validate(given), folder)


def everything(part: Dataset | None) -> dict[str, torch.Tensor]:
    assert part is not None
    return part.batch(np.arange(len(part)))


def people(part: Dataset | None) -> np.ndarray:
    """Whose each image is: int64 (rows, 1 + ways). Its grey tells."""
    return (everything(part)["images"].amax((2, 3, 4)) * 255).round().long().numpy() // 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As Labeled Faces in the Wild: 20 people of 4 images, one of them of one. All is grey: 10 for each
    person, 1 for each image."""
    folder = tmp_path_factory.mktemp("faces")
    for person in range(20):
        name = f"P_{person:02d}"
        (folder / "people" / name).mkdir(parents=True)
        for image in range(1 if person == 7 else 4):
            grey = np.full((8, 8), 10 * person + image, np.uint8)
            Image.fromarray(grey).save(folder / "people" / name / f"{name}_{image + 1:04d}.png")
    return folder


def test_parts_share_no_class(folder: Path) -> None:
    splits = read(folder, ways=4)
    seen = [set(people(part).flatten().tolist()) for part in (splits.train, splits.valid, splits.test)]
    assert [len(some) for some in seen] == [12, 4, 4]
    assert len(set.union(*seen)) == 20


def test_the_second_is_of_the_firsts_class_and_the_others_of_others(folder: Path) -> None:
    splits = read(folder, ways=4)
    for part in (splits.train, splits.valid):
        whose, batch = people(part), everything(part)
        assert (whose[:, 0] == whose[:, 1]).all()
        assert all(len(set(row)) == 4 for row in whose[:, 1:].tolist())
        assert not torch.isclose(batch["images"][:, 0], batch["images"][:, 1]).all((1, 2, 3)).any()
        assert batch["same"].tolist() == [[1, 0, 0, 0]] * len(whose)


def test_each_image_is_first_as_often_and_all_are_met() -> None:
    labels = np.repeat(np.arange(5), [1, 2, 3, 4, 10])
    numbers, _ = Draw(labels, 3, seed=0, name="faces")(np.arange(19 * 200))
    firsts = np.bincount(numbers[:, 0], minlength=20)
    assert firsts[0] == 0, "it is the only one of its class"
    assert (firsts[1:] == 200).all()
    # Of the other classes each comes as often, and in each all images.
    others = np.bincount(labels[numbers[labels[numbers[:, 0]] == 4][:, 2:]].flatten(), minlength=5)
    assert others[4] == 0
    assert (np.abs(others[:4] / 1000 - 1) < 0.12).all()
    assert (np.bincount(numbers[:, 2], minlength=20) > 0).all()
    seconds = np.bincount(numbers[numbers[:, 0] == 19][:, 1], minlength=20)[10:]
    assert (seconds[:-1] > 5).all()


def test_a_row_is_the_same_in_any_batch_and_parts_draw_otherwise() -> None:
    labels = np.repeat(np.arange(10), 10)
    draw = Draw(labels, 2, seed=1, name="faces")
    whole = draw(np.arange(50))[0]
    assert (draw(np.array([31, 4]))[0] == whole[[31, 4]]).all()
    assert (Draw(labels, 2, seed=2, name="faces")(np.arange(50))[0] != whole).any()


def test_the_training_classes_alone_are_measured(folder: Path) -> None:
    splits = read(folder, of={**FACES, "normalize": "measured"})
    plain = read(folder)
    trained = np.unique(everything(plain.train)["images"].amax((2, 3, 4)).numpy())
    assert splits.learnt["image"]["mean"] == pytest.approx([trained.mean()], abs=0.01)
    mean, std = splits.learnt["image"]["mean"][0], splits.learnt["image"]["std"][0]
    for part, other in ((splits.train, plain.train), (splits.test, plain.test)):
        torch.testing.assert_close(everything(part)["images"], (everything(other)["images"] - mean) / std)


def test_too_few_classes(folder: Path) -> None:
    with pytest.raises(
        DataError, match=r"20 classes are too few: 8 for validation and 8 for the test leave 4"
    ):
        read(folder, ways=8)
    assert len(read(folder, ways=8, test=0.0).valid) == 40


def test_a_class_of_one_image_gives_nothing_to_compare() -> None:
    with pytest.raises(DataError, match=r"^faces: valid: no class has two images"):
        Draw(np.arange(4), 2, seed=0, name="faces: valid")


LINES = "1\t2\nP_03\t1\t4\nP_04\t2\t1\nP_03\t2\tP_07\t1\nP_05\t4\tP_06\t3\n"


def test_pairs_of_a_file_are_the_test(folder: Path) -> None:
    (folder / "pairs.txt").write_text(LINES)
    splits = read(folder, pairs="pairs.txt")
    batch = everything(splits.test)
    grey = (batch["images"].amax((2, 3, 4)) * 255).round().long()
    assert grey.tolist() == [[30, 33], [41, 40], [31, 70], [53, 62]]
    assert batch["same"].tolist() == [[1], [1], [0], [0]]
    for part in (splits.train, splits.valid):
        assert not {3, 4, 5, 6, 7} & set(people(part).flatten().tolist())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"pairs.txt:1: must say how many sets"),
        ("P_03\t1\t4\n", r"pairs.txt:1: must say how many sets .* got 'P_03"),
        (LINES.replace("P_03\t1\t4", "P_03\t1"), r"pairs.txt:2: must be three words .* got 'P_03"),
        (LINES.replace("P_03\t1\t4", "P_03\t1\t5"), r"pairs.txt:2: no readable image P_03/P_03_0005\.\*"),
        (LINES.replace("P_07\t1", "P_77\t1"), r"pairs.txt:4: no readable image P_77/P_77_0001\.\*"),
        (LINES.replace("1\t2", "10\t2"), r"the first line says 40 pairs in all, and there are 4"),
    ],
)
def test_wrong_pairs_are_told(folder: Path, text: str, message: str) -> None:
    (folder / "pairs.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read(folder, pairs="pairs.txt")


def test_pairs_are_of_an_image_folder() -> None:
    with pytest.raises(ValidationError, match=r"names images of an image-folder, and data.of is digits"):
        Comparisons.model_validate(
            {"source": "comparisons", "of": {"source": "digits"}, "pairs": "pairs.txt"}
        )


def test_made_up_faces_are_a_persons_own_and_pixels_do_not_tell() -> None:
    def one_shot(varied: float) -> float:
        of = {"source": "synthetic-faces", "people": 60, "images": 4, "size": 24, "varied": varied}
        images = everything(read(Path(), of=of, ways=5, measured_rows=200).valid)["images"]
        away = (images[:, :1] - images[:, 1:]).square().mean((2, 3, 4))
        return float((away[:, 0] < away[:, 1:].amin(1)).float().mean())

    assert one_shot(0.0) == 1
    assert one_shot(1.0) < 0.4
