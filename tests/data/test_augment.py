from __future__ import annotations

import numpy as np
import pytest
import torch

from dlsys.data import rowwise
from dlsys.data.augment import augment
from dlsys.data.retexture import _waves, retextured
from dlsys.errors import DataError
from dlsys.spec.train.regularizer import DataAugmentation, Retexture


def options(**given: object) -> DataAugmentation:
    return DataAugmentation(name="data-augmentation", **given)


def make(rows: int, channels: int = 2, epoch: int = 0) -> dict[str, torch.Tensor]:
    image = torch.rand(rows, channels, 5, 6, generator=torch.Generator().manual_seed(0))
    key = rowwise.keys(0, epoch, np.arange(rows))
    return {"image": image, "label": torch.arange(rows), "key": key}


ALL = options(shift=2, flip=True, noise=0.1, retexture={"share": 0.7})


def test_a_row_is_varied_alike_in_any_batch() -> None:
    batch = make(40)
    whole = augment(batch, ALL)["image"]
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    for rows in (order[:7], order[7:8], order[8:]):
        part = augment({name: tensor[rows] for name, tensor in batch.items()}, ALL)
        assert torch.equal(part["image"], whole[rows])


def test_each_epoch_varies_anew_and_each_row_its_own_way() -> None:
    first, second = (augment(make(40, epoch=epoch), ALL)["image"] for epoch in (0, 1))
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    batch = make(40)
    batch["image"] = batch["image"][:1].repeat(40, 1, 1, 1)
    assert len({tuple(image.flatten().tolist()) for image in augment(batch, ALL)["image"]}) == 40


def test_the_input_and_the_other_fields_stay() -> None:
    batch = make(8)
    before = {name: tensor.clone() for name, tensor in batch.items()}
    after = augment(batch, ALL)
    assert all(torch.equal(batch[name], before[name]) for name in before)
    assert torch.equal(after["label"], batch["label"])
    assert torch.equal(after["key"], batch["key"])


def test_nothing_asked_nothing_done() -> None:
    batch = make(8)
    assert torch.equal(augment(batch, options())["image"], batch["image"])


def test_half_are_mirrored() -> None:
    batch = make(2000)
    image, varied = batch["image"], augment(batch, options(flip=True))["image"]
    same = (varied == image).flatten(1).all(1)
    mirrored = (varied == image.flip(-1)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 0.45 < mirrored.double().mean() < 0.55


def moved(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """Straight from the definition: pixel (r, c) goes to (r + down, c + right)."""
    found = torch.zeros_like(image)
    for r in range(image.shape[1]):
        for c in range(image.shape[2]):
            if 0 <= r + down < image.shape[1] and 0 <= c + right < image.shape[2]:
                found[:, r + down, c + right] = image[:, r, c]
    return found


def test_every_shift_is_as_likely() -> None:
    batch = make(1800)
    varied = augment(batch, options(shift=1))["image"]
    counts = {}
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            expected = torch.stack([moved(image, down, right) for image in batch["image"][:60]])
            hits = (varied[:60] == expected).flatten(1).all(1)
            counts[down, right] = int(hits.sum())
    assert sum(counts.values()) == 60
    assert min(counts.values()) > 0


def test_a_shift_may_be_larger_than_the_image() -> None:
    varied = augment(make(200), options(shift=20))["image"]
    assert varied.shape == (200, 2, 5, 6)
    assert (varied.flatten(1) == 0).all(1).any()


def test_noise_is_gaussian() -> None:
    batch = make(1000)
    noise = (augment(batch, options(noise=0.3))["image"] - batch["image"]).flatten()
    assert abs(float(noise.mean())) < 0.006
    assert abs(float(noise.std()) - 0.3) < 0.005
    assert abs(float((noise.abs() < 0.3).double().mean()) - 0.683) < 0.01


def test_needs_images() -> None:
    batch = {"features": torch.zeros(2, 3), "label": torch.zeros(2), "key": torch.zeros(2, dtype=torch.int64)}
    with pytest.raises(DataError) as error:
        augment(batch, ALL)
    assert str(error.value) == (
        "data-augmentation varies the field 'image' or 'clip', and this source's rows have: features, label"
    )


def test_the_frames_of_a_clip_are_varied_alike() -> None:
    """As the image that each of them would be in its place; noise alone is another one in each frame."""
    batch = make(9, channels=3)
    clip = torch.stack([batch["image"], batch["image"].flip(-1), batch["image"]], dim=1)
    told = options(shift=2, flip=True, rotate=20, hue=0.3, contrast=0.5, retexture={"share": 0.7})
    varied = augment({"clip": clip, "key": batch["key"]}, told)
    for frame in range(3):
        alone = augment({**batch, "image": clip[:, frame].contiguous()}, told)["image"]
        torch.testing.assert_close(varied["clip"][:, frame], alone)
    noisy = augment({"clip": clip, "key": batch["key"]}, options(noise=0.1))["clip"] - clip
    assert 0.08 < float(noisy.std()) < 0.12
    assert float((noisy[:, 0] - noisy[:, 2]).std()) > 0.1


def striped(rows: int, wavelength: float) -> dict[str, torch.Tensor]:
    """Stripes across a disc on a plain ground: (rows, 1, 40, 40)."""
    y, x = torch.meshgrid(torch.arange(40.0) - 19.5, torch.arange(40.0) - 19.5, indexing="ij")
    stripes = 0.6 + 0.2 * torch.sin(2 * torch.pi * x / wavelength)
    image = torch.where(x.square() + y.square() < 150, stripes, 0.2)
    return {"image": image.expand(rows, 1, 40, 40), "key": rowwise.keys(0, 0, np.arange(rows))}


def test_another_texture_keeps_what_is_around_it() -> None:
    batch = striped(200, 4.0)
    found = retextured(batch["image"], batch["key"], Retexture(share=1, scale=2))
    assert (found - batch["image"])[..., :4, :4].abs().max() < 1e-3, "a plain ground stays"
    inside = (slice(None), slice(None), slice(15, 25), slice(15, 25))
    before, after = batch["image"][inside].flatten(1), found[inside].flatten(1)
    assert float(after.mean()) == pytest.approx(float(before.mean()), abs=0.01)
    assert float(after.std()) == pytest.approx(float(before.std()), rel=0.15)
    alike = torch.corrcoef(torch.cat([before[:1], after]))[0, 1:].abs()
    assert alike.mean() < 0.3, "the stripes are gone"
    assert torch.corrcoef(after).triu(1).abs().max() < 1, "each has a pattern of its own"


def test_so_many_get_another_texture() -> None:
    batch = striped(1000, 4.0)
    found = retextured(batch["image"], batch["key"], Retexture(share=0.3))
    changed = (found != batch["image"]).flatten(1).any(1)
    assert 0.27 < changed.double().mean() < 0.33


def test_patterns_have_no_mean_and_a_deviation_of_one() -> None:
    pattern = _waves(rowwise.keys(0, 0, np.arange(50)), 20, 30)
    assert pattern.shape == (50, 1, 20, 30)
    assert pattern.mean((1, 2, 3)).abs().max() < 1e-5
    torch.testing.assert_close(pattern.std((1, 2, 3), correction=0), torch.ones(50))


def test_masks_move_with_their_images() -> None:
    batch = make(60)
    # Each pixel's class is told by its brightness; what is shifted in does not count.
    batch["mask"] = (batch["image"][:, 0] * 7).long()
    varied = augment(batch, options(flip=True, shift=2))
    inside = varied["image"].abs().sum(1) > 0
    assert torch.equal(varied["mask"][inside], (varied["image"][:, 0] * 7).long()[inside])
    assert (varied["mask"][~inside] == -1).all()
    assert (~inside).any()
    assert not torch.equal(varied["mask"], batch["mask"])


def test_own_transforms_would_leave_a_mask_behind() -> None:
    batch = {**make(2), "mask": torch.zeros(2, 5, 6, dtype=torch.int64)}
    with pytest.raises(DataError, match="these rows have places in their images"):
        augment(batch, options(), [lambda image: image])
