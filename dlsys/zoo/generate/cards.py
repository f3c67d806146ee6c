"""Cards of the generative models."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dlsys.spec.card import DATA_PARALLEL, Card, Shape
from dlsys.spec.section import Count, Positive, Section
from dlsys.zoo.cost import Cost, perceptron


class GANOptions(Section):
    """The sizes of generator and discriminator, and the ring that samples are measured against."""

    noise: Count = 2
    """Random numbers that a sample is made from."""
    hidden: Count = 128
    """Units of each hidden layer, in both nets."""
    layers: Count = 2
    """Hidden layers of each net."""
    modes: Annotated[Count, Field(ge=2)] = 8
    """Gaussians on the circle: the data source's own `modes`."""
    radius: Positive = 2.0
    """The circle's radius: the data source's own `radius`."""
    sigma: Positive = 0.1
    """Each Gaussian's standard deviation: the data source's own `sigma`."""


def gan_widths(options: GANOptions, shape: Shape) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Widths of the generator and of the discriminator, inputs and outputs among them."""
    hidden, dims = (options.hidden,) * options.layers, shape.row["point"][0]
    return (options.noise, *hidden, dims), (dims, *hidden, 1)


def _gan(options: GANOptions, shape: Shape) -> Cost:
    generator, discriminator = (perceptron(widths) for widths in gan_widths(options, shape))
    # A row's forward pass judges the real point and a generated one.
    twice = Cost(0, discriminator.flops, discriminator.outputs)
    return generator + discriminator + twice


GAN = Card(
    name="gan",
    title="GAN on points of the plane",
    paper="Goodfellow et al. 2014, arXiv:1406.2661",
    workload="dlsys.zoo.generate.gan:GAN",
    options=GANOptions,
    sources=("gaussian-ring",),
    metrics={"modes": "max", "within_3_sigma": "max"},
    # DeepSpeed has one optimizer.
    strategies=tuple(name for name in DATA_PARALLEL if name != "zero"),
    blocks=("generator", "discriminator"),
    parameters=lambda o, s: _gan(o, s).parameters,
    flops=lambda o, s: _gan(o, s).flops,
    activation_bytes=lambda o, s: _gan(o, s).activation_bytes,
)
