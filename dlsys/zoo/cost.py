"""What layers cost, without torch: the arithmetic behind the cards.

The rules are `dlsys.spec.card.Card`'s: 2 floating-point operations for each multiply-add of a
matrix product or convolution; kept for backward are the outputs of layers with parameters and of
activations, 4 bytes each. All figures are for one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Cost:
    """A part of a model; parts add up.

    Attributes:
        parameters: trainable numbers.
        flops: of the forward pass.
        outputs: numbers kept for backward.
    """

    parameters: int = 0
    flops: int = 0
    outputs: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.parameters + other.parameters,
            self.flops + other.flops,
            self.outputs + other.outputs,
        )

    @property
    def activation_bytes(self) -> int:
        return 4 * self.outputs


def dense(inputs: int, outputs: int) -> Cost:
    """An affine layer."""
    return Cost((inputs + 1) * outputs, 2 * inputs * outputs, outputs)


def convolution(inputs: int, outputs: int, kernel: int, size: Sequence[int], *, bias: bool = True) -> Cost:
    """A convolution with square kernels; `size` is the height and width of its OUTPUT."""
    weights, pixels = inputs * outputs * kernel**2, size[0] * size[1]
    return Cost(weights + bias * outputs, 2 * weights * pixels, outputs * pixels)


def activation(units: int) -> Cost:
    return Cost(outputs=units)


def perceptron(widths: Sequence[int]) -> Cost:
    """Dense layers from `widths[0]` inputs on, with an activation between two of them."""
    layers = [dense(inputs, outputs) for inputs, outputs in pairwise(widths)]
    return sum(layers, Cost(outputs=sum(widths[1:-1])))
