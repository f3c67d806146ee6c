"""The card of a GAN on points."""

from __future__ import annotations

from dlsys.spec.card import Card, Tiny
from dlsys.spec.section import Count, Section
from dlsys.spec.task import GENERATE_POINTS


class GANOptions(Section):
    """The sizes of generator and discriminator."""

    noise: Count = 2
    """Random numbers that a sample is made from."""
    hidden: Count = 128
    """Units of each hidden layer, in both nets."""
    layers: Count = 2
    """Hidden layers of each net."""


CARD = Card(
    name="gan",
    title="GAN on points of the plane",
    paper="Goodfellow et al. 2014, arXiv:1406.2661",
    workload="dlsys.zoo.generate.gan.model:GAN",
    options=GANOptions,
    task=GENERATE_POINTS,
    traits=("phases",),
    blocks=("generator", "discriminator"),
    tiny=(Tiny(options={"hidden": 32}),),
)
