"""FaceNet (Schroff, Kalenichenko and Philbin 2015, arXiv:1503.03832).

The paper looks for semi-hard negatives in a batch of thousands. Here every row brings its own negatives, and
the loss looks among these: what is learnt does not depend on how rows are spread over workers.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from dlsys.spec.libraries import architecture
from dlsys.spec.rows import Shape
from dlsys.zoo.imported import misfits_told
from dlsys.zoo.layers.embedding import Unit, embedding
from dlsys.zoo.library import built
from dlsys.zoo.tasks.verify import Verify, triplet
from dlsys.zoo.vision.facenet.card import CARD, FaceNetOptions
from dlsys.zoo.workload import Batch, Carry, Loss


class FaceNet(Verify):
    """Points (n, dimensions) of images (n, channels, height, width), 4 pixels or more a side."""

    Options = FaceNetOptions
    card = CARD

    def build(self) -> nn.Module:
        image, options = self.shape.row["images"][1:], self.options
        if of := architecture(options.architecture):
            # A library's classifier, whose logits are the coordinates.
            shape = Shape(row={"image": image}, classes=options.dimensions)
            make, arguments = built(of, options.arguments, shape, place="model.architecture")
            network = make(**arguments)
        else:
            network = embedding(image, options.width, options.dimensions)
        return nn.Sequential(OrderedDict(network=network, unit=Unit()))

    def forward(self, model: nn.Module, batch: Batch, carry: Carry) -> tuple[Tensor, Carry]:
        with misfits_told(self.options.architecture or CARD.name, {"images": batch["images"]}):
            return super().forward(model, batch, carry)

    def objective(self, outputs: Tensor, batch: Batch) -> Loss:
        return Loss(triplet(outputs, batch["same"], self.options.margin))
