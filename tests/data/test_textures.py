"""Generated textures, and shapes in them: what is planted is there, and nothing else tells the classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier

from dlsys.data import Dataset
from dlsys.data.images import patterns
from dlsys.data.images.shapes_and_textures import _SHAPES, _inside, shapes_and_textures
from dlsys.data.images.textures import textures
from dlsys.spec.data import ShapesAndTextures, Textures


def everything(part: Dataset) -> dict[str, torch.Tensor]:
    return part.batch(np.arange(len(part)))


def drawn(kind: str, rows: int) -> np.ndarray:
    kinds = np.full(rows, patterns.KINDS.index(kind))
    return patterns.textures(kinds, 40, np.random.default_rng(0), wavelength=(8.0, 8.0))


def test_no_pixel_tells_a_kind() -> None:
    for kind in patterns.KINDS:
        found = drawn(kind, 600)
        np.testing.assert_allclose(found.mean((1, 2)), 0, atol=1e-9)
        np.testing.assert_allclose(found.std((1, 2)), 1, rtol=1e-6)
        # The mean of 600 independent numbers of deviation 1, with room for the largest of 1,600.
        assert np.abs(found.mean(0)).max() < 5 / np.sqrt(600)


def test_kinds_are_what_they_are_called() -> None:
    spectrum = np.abs(np.fft.fft2(drawn("stripes", 60), s=(80, 80))) ** 2
    frequency = np.hypot(np.fft.fftfreq(80)[:, None], np.fft.fftfreq(80))
    assert spectrum[:, np.abs(frequency - 1 / 8) < 0.025].sum() > 0.8 * spectrum.sum()
    grain, clouds = drawn("grain", 60), drawn("clouds", 60)
    assert abs((grain[:, 1:] * grain[:, :-1]).mean()) < 0.02, "neighbours know nothing of each other"
    assert (clouds[:, 1:] * clouds[:, :-1]).mean() > 0.85
    bright, dark = ((drawn(kind, 60) ** 3).mean() for kind in ("dots", "holes"))
    assert bright > 0.5, "few bright pixels"
    assert dark == pytest.approx(-bright, rel=0.05)
    assert np.allclose(np.abs(drawn("checks", 60)), 1, atol=0.4), "two colours, of about as many pixels"


def test_raw_pixels_do_not_tell_textures_apart() -> None:
    splits = textures(Textures(source="textures"), Path())
    train, valid = everything(splits.train), everything(splits.valid)
    linear = RidgeClassifier(alpha=10.0).fit(train["image"].flatten(1), train["label"])
    assert linear.score(valid["image"].flatten(1), valid["label"]) < 0.3  # by chance 0.125
    assert train["label"].bincount().tolist() == [160] * 8


def test_light_and_noise_vary_as_told() -> None:
    plain, lit = (
        everything(textures(Textures(source="textures", rows=400, noise=0, light=light), Path()).train)[
            "image"
        ]
        for light in (0.0, 2.0)
    )
    assert plain.flatten(1).std(1).max() / plain.flatten(1).std(1).min() < 1.1
    assert lit.flatten(1).std(1).max() / lit.flatten(1).std(1).min() > 3
    first, second = (
        everything(textures(Textures(source="textures", rows=400, data_seed=seed), Path()).train)["image"]
        for seed in (0, 1)
    )
    assert not torch.equal(first, second)


def test_cues_agree_but_in_the_test() -> None:
    splits = shapes_and_textures(ShapesAndTextures(source="shapes-and-textures", rows=3000), Path())
    for part in (splits.train, splits.valid):
        rows = everything(part)
        assert torch.equal(rows["label"], rows["texture"])
    assert splits.test is not None
    rows = everything(splits.test)
    assert (rows["label"] != rows["texture"]).all()
    pairs = torch.zeros(6, 6).index_put_((rows["label"], rows["texture"]), torch.tensor(1.0), accumulate=True)
    assert (pairs + torch.eye(6) > 0).all(), "every shape in every other texture"


@pytest.mark.parametrize("shape", range(6), ids=list(_SHAPES))
def test_shapes_lie_within_the_picture_and_have_their_area(shape: int) -> None:
    inside = _inside(np.full(300, shape), 64, np.random.default_rng(0))
    border = np.ones((64, 64), dtype=bool)
    border[1:-1, 1:-1] = False
    assert not inside[:, border].any(), "none is cut"
    radius = 64 * 0.33
    disc, square, triangle = np.pi * 0.85**2, 1.4**2, 1.55**2 / 1.9
    cross, ring = 4 * 0.3 * (2 * 0.95 - 0.3), np.pi * (0.95**2 - 0.45**2)
    # Its radius falls from 1 to 0.4 in half of a fifth turn: the mean square is 0.52.
    star = np.pi * 0.52
    area = [disc, square, triangle, cross, ring, star][shape]
    assert inside.mean() * 64**2 / radius**2 == pytest.approx(area, rel=0.06)


def test_texture_is_in_the_shape_alone() -> None:
    options = ShapesAndTextures(source="shapes-and-textures", rows=60, size=64, noise=0, wavelength=6)
    image = everything(shapes_and_textures(options, Path()).train)["image"][:, 0]
    corners = torch.cat([image[:, :4, :4].flatten(1), image[:, -4:, -4:].flatten(1)], 1)
    assert corners.mean() < 0.35
    assert image.flatten(1).amax(1).min() > 0.6
