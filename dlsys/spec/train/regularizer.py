"""`regularize:` — a list of named regularizers. Penalties act on weights (tensors of two or more
dimensions), never on biases or norms' scales."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

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
    """Varies the training images anew in each epoch; a pure function of seed, epoch and row. Boxes, masks and
    keypoints follow; a box of which less than a quarter stays in the image is no object any more. A clip's
    frames are varied alike, but for noise."""

    name: Literal["data-augmentation"]
    shift: Annotated[NonNegativeInt, Field(le=64)] = 0
    """Moves an image by up to this many pixels each way, filling with zeros."""
    flip: Bool = False
    """Mirrors half of the images, left to right."""
    flip_vertical: Bool = False
    """Mirrors half of the images, upside down."""
    rotate: Annotated[NonNegative, Field(le=180)] = 0.0
    """Turns an image by up to this many degrees each way, around its centre."""
    scale: Annotated[tuple[Positive, Positive], Field(strict=False)] = (1.0, 1.0)
    """Scales what is seen by a factor between these two, around the centre."""
    shear: Annotated[NonNegative, Field(lt=90)] = 0.0
    """Slants an image by up to this many degrees each way, across and down."""
    translate: Fraction = 0.0
    """Moves an image by up to this share of its sides each way."""
    crop: Annotated[Number, Field(gt=0, le=1)] = 1.0
    """Shows a part of the image, of this share of its area at least and of its proportions, at full size."""
    brightness: Fraction = 0.0
    """Multiplies brightness by up to this much more or less than 1."""
    contrast: Fraction = 0.0
    """Multiplies the distance from the image's mean grey likewise."""
    saturation: Fraction = 0.0
    """Multiplies the distance from grey likewise, pixel by pixel."""
    hue: Annotated[NonNegative, Field(le=0.5)] = 0.0
    """Turns hues by up to this share of a full turn each way."""
    noise: NonNegative = 0.0
    """The standard deviation of added Gaussian noise."""
    mixup: NonNegative = 0.0
    """Mixes each image of a class with another row's, by shares of a Beta(mixup, mixup); labels are shared
    likewise. For classifiers that learn by cross-entropy."""
    cutmix: NonNegative = 0.0
    """Puts a rectangle of another row's image into each, of Beta(cutmix, cutmix) of its area; likewise. With
    both, each row has one of them."""
    retexture: Retexture | None = None
    """Gives images another texture, before they move."""
    transforms: tuple[OwnTransform, ...] = ()
    """Before all of these, in their order: functions of your own or of a library's, with their options, such
    as `{name: "torchvision.transforms.v2:RandAugment", num_ops: 2}`. An image is float32 (C, H, W) in 0…1;
    torch's, numpy's and Python's random numbers are its row's own."""

    @property
    def warps(self) -> bool:
        """Whether pixels move by anything but whole ones."""
        return bool(self.rotate or self.shear or self.translate or self.scale != (1.0, 1.0) or self.crop < 1)

    @model_validator(mode="after")
    def _rising(self) -> DataAugmentation:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale: {self.scale[0]} is more than {self.scale[1]}: the smaller stands first")
        return self


Regularizer = Annotated[
    L1 | L2 | ElasticNet | WeightDecay | Dropout | MCDropout | MaxNorm | GradientClipping | DataAugmentation,
    Field(discriminator="name"),
]
