"""`optimizer:` and its typed options. The update rules themselves are in `dlsys.train.optim`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from dlsys.spec.section import Bool, Fraction, NonNegative, Positive, Section, Text


class Group(Section):
    """Parameters that are updated in a way of their own."""

    match: Annotated[tuple[Text, ...], Field(min_length=1)]
    """Patterns of their names: `["*.bias", "*norm*"]`."""
    lr_factor: Positive = 1.0
    """Their learning rate is that of the schedule times this."""
    weight_decay: NonNegative | None = None
    """By default the optimizer's."""


class _Optimizer(Section):
    weight_decay: NonNegative = 0.0
    """Added to the gradient as weight_decay × parameter (decoupled from it in adamw)."""
    groups: tuple[Group, ...] = ()
    """Parameters with another rate or decay: `[{match: ["*.bias"], weight_decay: 0}]`. Of several that match,
    the first counts."""

    @property
    def arguments(self) -> dict[str, Any]:
        """What an optimizer of torch's is made with, besides parameters."""
        return self.model_dump(exclude={"name", "groups"})


class GD(_Optimizer):
    """Gradient descent on the whole training set: `batch_size` must be `all`."""

    name: Literal["gd"]
    lr: Positive = 0.1
    """The learning rate η of θ ← θ − η·g."""


class SGD(_Optimizer):
    """Stochastic gradient descent (Robbins and Monro 1951)."""

    name: Literal["sgd", "minibatch-sgd"] = "sgd"
    lr: Positive = 0.1
    """The learning rate."""
    momentum: Fraction = 0.0
    """The share β of the last update that is kept."""
    dampening: Fraction = 0.0
    """The share of the gradient that does not enter the momentum."""
    nesterov: Bool = False
    """Takes the gradient at the point the momentum leads to; needs momentum."""


class Momentum(_Optimizer):
    """SGD with heavy-ball momentum (Polyak 1964)."""

    name: Literal["momentum"]
    lr: Positive = 0.1
    """The learning rate."""
    momentum: Fraction = 0.9
    """The share β of the last update that is kept; terminal speed is η·g/(1−β)."""


class Nesterov(_Optimizer):
    """SGD with Nesterov's accelerated gradient (1983)."""

    name: Literal["nesterov"]
    lr: Positive = 0.1
    """The learning rate."""
    momentum: Annotated[Fraction, Field(gt=0)] = 0.9
    """The share β of the last update that is kept."""


class Adagrad(_Optimizer):
    """Adagrad (Duchi et al. 2011): a rate for each parameter; suits sparse features."""

    name: Literal["adagrad"]
    lr: Positive = 0.01
    """The learning rate."""
    lr_decay: NonNegative = 0.0
    """Divides the rate by 1 + lr_decay × steps."""
    eps: Positive = 1e-10
    """Added to the denominator."""


class RMSprop(_Optimizer):
    """RMSprop (Hinton 2012)."""

    name: Literal["rmsprop"]
    lr: Positive = 0.01
    """The learning rate."""
    alpha: Fraction = 0.99
    """The decay of the running mean of squared gradients."""
    momentum: Fraction = 0.0
    """Momentum of the scaled gradient."""
    eps: Positive = 1e-8
    """Added to the denominator."""


class Adadelta(_Optimizer):
    """Adadelta (Zeiler 2012): two running averages and no rate to choose."""

    name: Literal["adadelta"]
    lr: Positive = 1.0
    """A factor on the update; 1 is the paper's."""
    rho: Fraction = 0.9
    """The decay of both running averages."""
    eps: Positive = 1e-6
    """Added under both roots."""


class Adam(_Optimizer):
    """Adam (Kingma and Ba 2014)."""

    name: Literal["adam"]
    lr: Positive = 1e-3
    """The learning rate."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decay of the running means of the gradient and of its square."""
    eps: Positive = 1e-8
    """Added to the denominator."""


class AdamW(_Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2017)."""

    name: Literal["adamw"]
    lr: Positive = 1e-3
    """The learning rate."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decay of the running means of the gradient and of its square."""
    eps: Positive = 1e-8
    """Added to the denominator."""
    weight_decay: NonNegative = 0.01
    """Shrinks each parameter by lr × weight_decay a step."""


class Adamax(_Optimizer):
    """Adamax (Kingma and Ba 2014): Adam on the infinity norm."""

    name: Literal["adamax"]
    lr: Positive = 2e-3
    """The learning rate."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decay of the running mean and of the running maximum."""
    eps: Positive = 1e-8
    """Added to the denominator."""


class NAdam(_Optimizer):
    """Adam with Nesterov momentum (Dozat 2016)."""

    name: Literal["nadam"]
    lr: Positive = 2e-3
    """The learning rate."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decay of the running means of the gradient and of its square."""
    eps: Positive = 1e-8
    """Added to the denominator."""
    momentum_decay: NonNegative = 4e-3
    """How fast the momentum warms up."""


class Yogi(_Optimizer):
    """Yogi (Zaheer et al. 2018): the second moment grows in a controlled way."""

    name: Literal["yogi"]
    lr: Positive = 0.01
    """The learning rate."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decay of the two running moments."""
    eps: Positive = 1e-3
    """Added to the denominator."""
    initial_accumulator: NonNegative = 1e-6
    """The value both moments start from."""


Optimizer = Annotated[
    SGD | GD | Momentum | Nesterov | Adagrad | RMSprop | Adadelta | Adam | AdamW | Adamax | NAdam | Yogi,
    Field(discriminator="name"),
]
