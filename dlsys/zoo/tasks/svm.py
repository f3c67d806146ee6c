"""A linear support vector machine (Cortes and Vapnik 1995) on features that are computed, not learnt.

In the primal form: an affine layer, trained by the hinge loss with the optimizer's weight decay as its
regularizer (Shalev-Shwartz et al. 2011, Pegasos), so that it learns in batches and under any strategy. A
kernel is a matter of the features: those whose scalar product is the kernel's value.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from dlsys.zoo.objective import hinge
from dlsys.zoo.tasks.classify import Classify


class Standardized(nn.Module):
    """Raw pixels as features: (rows, channels, height, width) to (rows, pixels), each image less its mean and
    by its deviation, so that neither its brightness nor its contrast counts."""

    def forward(self, image: Tensor) -> Tensor:
        pixels = image.flatten(1)
        deviation, mean = torch.std_mean(pixels, 1, correction=0, keepdim=True)
        return (pixels - mean) / deviation.clamp(min=1e-3)


def grey(image: Tensor) -> Tensor:
    """The mean over channels: (rows, channels, height, width) to (rows, height, width)."""
    return image.mean(1)


class LinearSVM(Classify):
    """Scores (rows, classes) of `image`; a subclass says by which features."""

    def features(self) -> nn.Module:
        """What makes (rows, numbers) of `image`."""
        raise NotImplementedError

    def build(self) -> nn.Module:
        features = self.features()
        with torch.no_grad():  # on zeros, whose values do not matter
            units = features(torch.zeros(1, *self.shape.row["image"])).shape[1]
        return nn.Sequential(OrderedDict(features=features, svm=nn.Linear(units, self.shape.classes)))

    def learns_by(self, outputs: Tensor, label: Tensor) -> Tensor:
        return hinge(outputs, label)
