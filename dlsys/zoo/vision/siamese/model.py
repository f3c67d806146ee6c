"""A siamese net with the contrastive loss (Hadsell, Chopra and LeCun 2006).

All images go through one network. It is today's: group norm, ReLU, and points on the unit sphere, where the
paper leaves their length open.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from dlsys.zoo.layers.embedding import Unit, embedding
from dlsys.zoo.tasks.verify import Verify, contrastive
from dlsys.zoo.vision.siamese.card import CARD, SiameseOptions
from dlsys.zoo.workload import Batch, Loss


class Siamese(Verify):
    """Points (n, dimensions) of images (n, channels, height, width), 4 pixels or more a side."""

    Options = SiameseOptions
    card = CARD

    def build(self) -> nn.Module:
        image, options = self.shape.row["images"][1:], self.options
        network = embedding(image, options.width, options.dimensions)
        return nn.Sequential(OrderedDict(network=network, unit=Unit()))

    def objective(self, outputs: Tensor, batch: Batch) -> Loss:
        return Loss(contrastive(outputs, batch["same"], self.options.margin))
