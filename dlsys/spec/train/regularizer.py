"""`regularize:` — a list of named regularizers. Penalties act on weights (tensors of two or more
dimensions), never on biases or norms' scales."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from dlsys.spec.section import (
    Bool,
    Count,
    Fraction,
    NonNegative,
    NonNegativeInt,
    Number,
    Positive,
    Section,
    Text,
)


class L1(Section):
    """Adds λ·Σ|w| to the loss: drives irrelevant weights to zero."""

    name: Literal["l1"]
    strength: Positive
    """λ, the penalty's weight."""


class L2(Section):
    """Adds λ·Σw² to the loss."""

    name: Literal["l2"]
    strength: Positive
    """λ, the penalty's weight; the gradient is 2λw."""


class ElasticNet(Section):
    """Adds λ·(r·Σ|w| + (1−r)/2·Σw²) to the loss (Zou and Hastie 2005)."""

    name: Literal["elastic-net"]
    strength: Positive
    """λ, the penalty's weight."""
    l1_ratio: Annotated[Number, Field(ge=0, le=1)] = 0.5
    """r: 1 is pure l1, 0 pure l2; scikit-learn's convention."""


class WeightDecay(Section):
    """Shrinks weights each step: w ← w − lr·λ·w, on top of the optimizer's own update."""

    name: Literal["weight-decay"]
    strength: Positive
    """λ, the share that a rate of 1 takes from each weight in a step."""


class Dropout(Section):
    """Sets the rate of every dropout layer that the model has (Srivastava et al. 2014)."""

    name: Literal["dropout"]
    p: Fraction
    """The probability of switching a unit off."""


class MCDropout(Section):
    """Evaluates with dropout left on and averages the predictions (Gal and Ghahramani 2015)."""

    name: Literal["mc-dropout"]
    samples: Count = 20
    """Stochastic passes per batch."""


class MaxNorm(Section):
    """Rescales each unit's incoming weights to a norm of at most r after each step."""

    name: Literal["max-norm"]
    limit: Positive
    """r, the largest norm."""


class GradientClipping(Section):
    """Scales the whole gradient down to a norm of at most c; the same as gradient.clip_norm."""

    name: Literal["gradient-clipping"]
    norm: Positive
    """c, the largest norm."""


class OwnTransform(Section):
    """A function, or a class whose objects are functions, from an image to an image."""

    model_config = ConfigDict({**Section.model_config, "extra": "allow"})

    name: Annotated[Text, Field(json_schema_extra={"pattern": r"^[^\s:]+:[^\s:]+$"})]
    """`package.module:function` or `package.module:Class`; other keys are its options."""

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Retexture(Section):
    """Gives images another texture, so that a model must go by shape: what is finer than `scale` is taken
    for waves of random directions, as strong as it was at each place."""

    share: Annotated[Number, Field(gt=0, le=1)] = 0.5
    """The share of the images, another one in each epoch."""
    scale: Positive = 1.5
    """The deviation, in pixels, of the Gaussian window in which mean and strength are kept."""


class DataAugmentation(Section):
    """Varies the training images anew in each epoch; a pure function of seed, epoch and row."""

    name: Literal["data-augmentation"]
    shift: Annotated[NonNegativeInt, Field(le=64)] = 0
    """Moves an image by up to this many pixels each way, filling with zeros."""
    flip: Bool = False
    """Mirrors half of the images, left to right."""
    noise: NonNegative = 0.0
    """The standard deviation of added Gaussian noise."""
    retexture: Retexture | None = None
    """Gives images another texture, before shift, flip and noise."""
    transforms: tuple[OwnTransform, ...] = ()
    """Before all of these, in their order: functions of your own or of a library's, with their options, such
    as `{name: "torchvision.transforms.v2:RandAugment", num_ops: 2}`. An image is float32 (C, H, W) in 0…1;
    torch's, numpy's and Python's random numbers are its row's own."""


Regularizer = Annotated[
    L1 | L2 | ElasticNet | WeightDecay | Dropout | MCDropout | MaxNorm | GradientClipping | DataAugmentation,
    Field(discriminator="name"),
]
