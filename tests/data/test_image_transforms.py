"""Images are scaled by what was learnt, and varied by functions that a row's key alone decides."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness import QUICK, assert_equal, job, train
from PIL import Image

import dlsys
from dlsys.data import Splits, load, rowwise
from dlsys.data.augment import augment, own_transforms
from dlsys.data.images.normalize import IMAGENET
from dlsys.data.loader import Loader
from dlsys.data.order import Order
from dlsys.errors import DataError, SpecError, UsageError
from dlsys.spec.data import Digits, ImageFolder, OwnSource
from dlsys.spec.data.images import ChannelStatistics
from dlsys.spec.load import load as load_job
from dlsys.spec.train.regularizer import DataAugmentation, OwnTransform

MODULE = """
import random
import numpy as np
import torch

def noisy(image, strength: float = 1.0):
    drawn = torch.rand(()) + float(np.random.rand()) + random.random()
    return image + strength * drawn

class Add:
    def __init__(self, amount: float):
        self.amount = amount
    def __call__(self, image):
        return image.add_(self.amount)

def smaller(image):
    return image[:, 1:]

def words(image):
    return "no image"

number = 3

def images():
    return {"image": np.full((20, 2, 4, 4), 0.5, np.float32), "label": np.arange(20) % 2}

def drawn(scaled: bool):
    image = np.random.default_rng(0).random((40, 1, 8, 8)).astype(np.float32)
    if scaled:
        image = (image - np.float32(0.5)) / np.float32(0.25)
    return {"image": image, "label": np.arange(40) % 2}

def rows():
    return {"features": np.zeros((20, 3)), "label": np.arange(20) % 2}
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "image_transforms_of_mine.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))


def own(*names: str, **options: Any) -> DataAugmentation:
    transforms = tuple(OwnTransform(name=f"image_transforms_of_mine:{name}", **options) for name in names)
    return DataAugmentation(name="data-augmentation", transforms=transforms)


def varied(options: DataAugmentation, rows: np.ndarray, *, epoch: int = 0) -> torch.Tensor:
    batch = {"image": torch.zeros(len(rows), 1, 3, 3), "key": rowwise.keys(0, epoch, rows)}
    return augment(batch, options, own_transforms(options))["image"]


def test_a_row_is_transformed_alike_in_any_batch() -> None:
    options = own("noisy", strength=2.0)
    every = varied(options, np.arange(9))
    assert len(every[:, 0, 0, 0].unique()) == 9
    assert torch.equal(varied(options, np.array([7, 2])), every[[7, 2]])
    assert not torch.equal(varied(options, np.arange(9), epoch=1), every)


def test_nobody_elses_random_numbers_change() -> None:
    def drawn(between: bool) -> tuple[float, ...]:
        torch.manual_seed(1)
        np.random.seed(1)
        random.seed(1)
        if between:
            varied(own("noisy"), np.arange(3))
        return float(torch.rand(())), float(np.random.rand()), random.random()

    assert drawn(True) == drawn(False)


def test_transforms_follow_each_other_and_leave_what_was_given() -> None:
    image = torch.ones(2, 1, 2, 2)
    options = own("Add", amount=0.5)
    options = options.model_copy(update={"transforms": options.transforms * 2})
    batch = {"image": image, "key": rowwise.keys(0, 0, np.arange(2))}
    assert (augment(batch, options, own_transforms(options))["image"] == 2).all()
    assert (image == 1).all()


@pytest.mark.parametrize(
    ("name", "options", "error", "said"),
    [
        ("smaller", {}, DataError, r"of an image float32 \[1, 3, 3\] they make torch.float32 \[1, 2, 3\]"),
        ("words", {}, DataError, "they make str"),
        ("number", {}, UsageError, "image_transforms_of_mine:number is 3: name a function or a class"),
        ("Add", {}, UsageError, "regularize.transforms.amount: is required and missing"),
        ("noisy", {"strong": 1.0}, UsageError, "regularize.transforms.strong: unknown key"),
    ],
)
def test_what_is_no_transform_is_told(
    name: str, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        varied(own(name, **options), np.arange(2))


def test_any_number_of_workers_sees_the_same_images() -> None:
    splits = load(Digits(source="digits", normalize="measured"), Path())
    options = DataAugmentation(
        name="data-augmentation",
        transforms=(OwnTransform(name="torchvision.transforms.v2:RandAugment", num_ops=1),),
    )

    def batches(size: int) -> dict[int, torch.Tensor]:
        """Each row of the first batch by its key."""
        own = own_transforms(options)
        found: dict[int, torch.Tensor] = {}
        for rank in range(size):
            loader = Loader(
                splits.train,
                Order(len(splits.train), 12, "shuffled", 0),
                rank=rank,
                size=size,
                vary=lambda batch: augment(batch, options, own),
                scale=splits.scaling,
            )
            batch = loader.make(0, 0).micros[0].batch
            found |= dict(zip(batch["key"].tolist(), batch["image"], strict=True))
        return found

    one, three = batches(1), batches(3)
    assert one.keys() == three.keys()
    assert all(torch.equal(one[key], three[key]) for key in one)


def test_training_validation_and_test_see_scaled_images(tmp_path: Path) -> None:
    """What a function scales itself gives the same run."""
    text = QUICK.replace("{source: digits}", "{source: 'image_transforms_of_mine:drawn', scaled: false}")
    done = train(job(text, "batch_size=8", "data.normalize={mean: [0.5], std: [0.25]}"), tmp_path / "one")
    same = train(job(text, "batch_size=8", "data.scaled=true"), tmp_path / "two")
    assert_equal(done.weights, same.weights)
    for name in ("train/loss", "valid/loss", "test/loss"):
        assert done.points[name] == same.points[name]
    assert json.loads((tmp_path / "one/artifacts/data.json").read_text())["image"]["std"] == [0.25]


def pictures(folder: Path) -> None:
    for number in range(20):
        place = folder / "p" / ("cat", "dog")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.zeros((8, 16, 3), np.uint8)
        pixels[:, :8] = (10 * number, 100, 0)
        Image.fromarray(pixels).save(place / f"{number}.png")


def every(splits: Splits) -> torch.Tensor:
    batch = splits.train.batch(np.arange(len(splits.train)))
    return (splits.scaling(batch) if splits.scaling else batch)["image"]


def test_measured_images_have_no_mean_and_deviation_one(tmp_path: Path) -> None:
    pictures(tmp_path)
    splits = load(ImageFolder(source="image-folder", path="p", size=8, normalize="measured"), tmp_path)
    image = every(splits)
    assert image.mean(dim=(0, 2, 3)).abs().max() < 1e-5
    assert image[:, :2].std(dim=(0, 2, 3), correction=0).tolist() == pytest.approx([1, 1], abs=1e-4)
    assert (image[:, 2] == 0).all(), "a channel that never varies"
    told = splits.learnt["image"]
    assert told["std"][2] == 1
    plain = load(ImageFolder(source="image-folder", path="p", size=8), tmp_path)
    assert plain.scaling is None
    assert torch.allclose(
        every(plain) * 1.0,
        image * torch.tensor(told["std"])[:, None, None] + torch.tensor(told["mean"])[:, None, None],
        atol=1e-6,
    )


def test_named_and_given_statistics(tmp_path: Path) -> None:
    pictures(tmp_path)
    plain = every(load(ImageFolder(source="image-folder", path="p", size=8), tmp_path))
    named = load(ImageFolder(source="image-folder", path="p", size=8, normalize="imagenet"), tmp_path)
    assert torch.allclose(every(named)[:, 0], (plain[:, 0] - IMAGENET.mean[0]) / IMAGENET.std[0], atol=1e-6)
    assert named.learnt["image"]["mean"] == list(IMAGENET.mean)
    given = ChannelStatistics(mean=(0.5,), std=(0.25,))
    digits = load(Digits(source="digits", normalize=given), tmp_path)
    assert every(digits).min() == -2
    assert digits.notes == ("digits: images less 0.5, by 0.25",)
    with pytest.raises(
        DataError, match=r"digits: data\.normalize: images have 1 channel, and imagenet has 3 means"
    ):
        load(Digits(source="digits", normalize="imagenet"), tmp_path)


def test_images_and_rows_of_ones_own(tmp_path: Path) -> None:
    options = {"source": "image_transforms_of_mine:images", "normalize": "measured"}
    splits = load(OwnSource(**options), tmp_path)
    assert (every(splits) == 0).all()
    assert splits.learnt["image"]["mean"] == [0.5, 0.5]
    with pytest.raises(
        DataError, match=r"data\.normalize is for rows with an image .*, and these have features"
    ):
        load(OwnSource(**options | {"source": "image_transforms_of_mine:rows"}), tmp_path)


@pytest.mark.parametrize("resize", ["crop", "stretch"])
def test_a_run_sees_other_images_as_its_own(resize: str, tmp_path: Path) -> None:
    """The left half of each image is coloured: cropped, the centre's left half is; stretched, as well."""
    pictures(tmp_path)
    options = ImageFolder(source="image-folder", path="p", size=4, normalize="measured", resize=resize)
    splits = load(options, tmp_path)
    run = dlsys.Run("mine", "FINISHED", {}, tmp_path, "")
    (tmp_path / "artifacts").mkdir()
    with pytest.raises(UsageError, match="mine: no images can be made: it did not learn from a folder"):
        run.images([])
    (tmp_path / "artifacts" / "data.json").write_text(json.dumps(splits.learnt))
    known = {tuple(image.flatten().tolist()) for image in every(splits)}
    seen = run.images(sorted((tmp_path / "p").glob("*/*.png")))
    assert known <= {tuple(image.flatten().tolist()) for image in seen}
    (tmp_path / "odd.png").write_text("no image")
    with pytest.raises(DataError, match=r"odd\.png: cannot be decoded"):
        run.images([tmp_path / "odd.png"])


def test_an_image_that_is_no_square_is_cropped_or_stretched(tmp_path: Path) -> None:
    (tmp_path / "p" / "a").mkdir(parents=True)
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, 4:12] = 255  # the centre
    for number in range(4):
        Image.fromarray(pixels).save(tmp_path / "p" / "a" / f"{number}.png")

    def read(resize: str) -> torch.Tensor:
        options = ImageFolder(source="image-folder", path="p", size=8, resize=resize, test=0.0)
        return every(load(options, tmp_path))

    assert read("crop").mean() == 1
    assert read("stretch").mean() == pytest.approx(0.5, abs=0.01)
    edge = read("stretch")[0, 0, 0]
    assert len(edge.unique()) > 2, "pixels on an edge are of both sides"


JOB = """\
kind: train
name: t
workload: lenet-5
data: {data}
batch_size: 4
regularize: [{{name: data-augmentation, transforms: [{{name: "{transform}"}}]}}]
stop: {{epochs: 1}}
"""


@pytest.mark.parametrize(
    ("data", "transform", "said"),
    [
        (
            "{source: digits}",
            "image_transforms_of_mine:noise",
            r"transforms\[0\]\.name: .* defines no 'noise'. Did you",
        ),
        ("{source: digits}", "noisy", r"transforms\[0\]\.name: 'noisy' is not package.module:Class"),
        ("{source: digits, prefetch: 2}", "torch:relu", "data.prefetch: transforms draw from torch's own"),
        ("{source: digits, normalize: mean}", "torch:relu", "data.normalize"),
        (
            "{source: digits, normalize: {mean: [0.5]}}",
            "torch:relu",
            "data.normalize: must be .* a mapping of mean and std",
        ),
    ],
)
def test_check_tells(
    data: str, transform: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(JOB.format(data=data, transform=transform))
    with pytest.raises(SpecError, match=said):
        load_job(tmp_path / "job.yaml")
