"""Softmax regression (Cox 1958): one affine layer, the convex baseline of every classifier."""

from __future__ import annotations

import math

from torch import nn

from dlsys.zoo.foundation.softmax_regression.card import CARD, SoftmaxRegressionOptions
from dlsys.zoo.tasks.classify import Classify


class SoftmaxRegression(Classify):
    """Logits (rows, classes) from `image`, `clip` or `features`, flattened."""

    Options = SoftmaxRegressionOptions
    card = CARD

    def build(self) -> nn.Module:
        units = math.prod(self.shape.row[self.input])
        return nn.Sequential(nn.Flatten(), nn.Linear(units, self.shape.classes))
