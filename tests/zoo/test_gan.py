from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dlsys.data import rowwise
from dlsys.errors import UsageError
from dlsys.spec.rows import Shape
from dlsys.zoo.generate.gan.card import GANOptions
from dlsys.zoo.generate.gan.model import GAN

SHAPE = Shape(row={"point": (2,)}, planted={"modes": 8, "radius": 2.0, "sigma": 0.1})


def ring(rows: int, modes: int = 8, radius: float = 2.0, sigma: float = 0.1) -> torch.Tensor:
    angle = torch.arange(rows) % modes * (2 * math.pi / modes)
    noise = torch.randn(rows, 2, generator=torch.Generator().manual_seed(0))
    return radius * torch.stack([angle.cos(), angle.sin()], dim=1) + sigma * noise


def summary(workload: GAN, samples: torch.Tensor, real: torch.Tensor) -> dict[str, float]:
    logits = torch.zeros(len(real), 1)
    outputs = {"samples": samples, "real": logits, "fake": logits}
    sums = workload.measure(outputs, {"point": real})
    return workload.summarize({**sums, "rows": torch.tensor(float(len(real)))})


def test_the_datas_own_points_are_a_perfect_score() -> None:
    found = summary(GAN(GANOptions(), SHAPE), ring(4000), ring(4000))
    assert found["modes"] == 8
    # The share of a Gaussian in the plane within 3 sigma.
    assert found["within_3_sigma"] == pytest.approx(1 - math.exp(-4.5), abs=0.006)
    assert found["loss"] == pytest.approx(2 * math.log(2))


def test_a_collapsed_generator_is_seen() -> None:
    workload, real = GAN(GANOptions(), SHAPE), ring(800)
    one = torch.tensor([[2.0, 0.0]]).expand(800, 2)
    assert summary(workload, one, real) == pytest.approx(
        {"loss": 2 * math.log(2), "modes": 1, "within_3_sigma": 1}
    )
    assert summary(workload, torch.zeros(800, 2), real)["within_3_sigma"] == 0


@pytest.mark.parametrize(("hits", "modes"), [(25, 8), (24, 7)])
def test_a_mode_needs_a_quarter_of_an_equal_share(hits: int, modes: int) -> None:
    # 800 samples: an equal share is 100.
    samples = ring(800, sigma=0.0)
    first = torch.arange(800) % 8 == 0
    samples[first.nonzero()[hits:, 0]] = torch.tensor([0.0, 2.0])
    assert summary(GAN(GANOptions(), SHAPE), samples, ring(800))["modes"] == modes


@pytest.mark.parametrize("other", [{"modes": 6}, {"radius": 3.0}, {"sigma": 0.3}])
def test_the_ring_is_the_datas_own(other: dict[str, float]) -> None:
    """Whatever the source planted is what samples are held against."""
    real = ring(800, **other)  # type: ignore[arg-type]
    shape = Shape(row={"point": (2,)}, planted={**SHAPE.planted, **other})
    found = summary(GAN(GANOptions(), shape), real, real)
    assert found["modes"] == shape.planted["modes"]
    assert found["within_3_sigma"] > 0.97
    assert summary(GAN(GANOptions(), SHAPE), real, real)["within_3_sigma"] < 0.9


def test_points_without_a_ring_are_refused() -> None:
    with pytest.raises(UsageError, match="this source says no modes, radius, sigma"):
        GAN(GANOptions(), Shape(row={"point": (2,)}))


def test_noise_is_the_rows_own_and_fresh_for_each_use() -> None:
    torch.manual_seed(0)
    workload = GAN(GANOptions(), SHAPE)
    model = workload.build()
    key = rowwise.keys(0, 0, np.arange(10))
    whole, _ = workload.forward(model, {"point": ring(10), "key": key}, None)
    part, _ = workload.forward(model, {"point": ring(10)[4:7], "key": key[4:7]}, None)
    torch.testing.assert_close(part["samples"], whole["samples"][4:7])
    other, _ = workload.forward(model, {"point": ring(10), "key": rowwise.keys(0, 1, np.arange(10))}, None)
    assert not torch.isclose(other["samples"], whole["samples"]).any()


def test_a_phase_gives_no_gradient_to_the_other() -> None:
    torch.manual_seed(0)
    workload = GAN(GANOptions(), SHAPE)
    model = workload.build()
    discriminator, _ = workload.phases()
    loss, _ = discriminator.loss(model, {"point": ring(8), "key": rowwise.keys(0, 0, np.arange(8))}, None)
    loss.value.backward()
    with_gradient = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {"discriminator"}


def test_samples_are_a_picture() -> None:
    workload = GAN(GANOptions(), SHAPE)
    image = workload.samples(workload.build(), 0)["samples.png"]
    assert isinstance(image, torch.Tensor)
    assert image.shape == (1, 1, 128, 128)
    assert image.min() == 0
    assert image.max() == 1
