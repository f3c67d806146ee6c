"""Softmax regression (Cox 1958): one affine layer, the convex baseline of every classifier."""

from __future__ import annotations

import math

from torch import nn

from dlsys.spec.card import Shape
from dlsys.zoo.classifier import Classifier
from dlsys.zoo.foundation.cards import SOFTMAX_REGRESSION, SoftmaxRegressionOptions, input_field


class SoftmaxRegression(Classifier):
    """Logits (rows, classes) from `image` or `features`, flattened."""

    Options = SoftmaxRegressionOptions
    card = SOFTMAX_REGRESSION

    def __init__(self, options: SoftmaxRegressionOptions, shape: Shape) -> None:
        super().__init__(options, shape)
        self.input = input_field(shape)

    def build(self) -> nn.Module:
        units = math.prod(self.shape.row[self.input])
        return nn.Sequential(nn.Flatten(), nn.Linear(units, self.shape.classes))
