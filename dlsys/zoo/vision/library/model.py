"""Image architectures that timm and torchvision build, with new weights, for images of any size."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.errors import UsageError
from dlsys.spec.libraries import architecture
from dlsys.zoo.imported import misfits_told
from dlsys.zoo.library import built
from dlsys.zoo.tasks.classify import Classify
from dlsys.zoo.vision.library.card import CARD, LibraryOptions
from dlsys.zoo.workload import Batch, Carry


def _fitted(_: nn.Module, inputs: tuple[Tensor], *, size: int | None, copies: int) -> tuple[Tensor]:
    """Images (rows, channels, height, width) at the size and with the channels that a network takes."""
    (image,) = inputs
    if size is not None and image.shape[-2:] != (size, size):
        shrunk = size < max(image.shape[-2:])
        image = F.interpolate(image, size=(size, size), mode="bilinear", antialias=shrunk)
    return (image.expand(-1, copies, -1, -1) if copies > 1 else image,)


class Library(Classify):
    """Logits (rows, classes) from `image` (rows, channels, height, width); grey images are given to
    torchvision's networks, which take colours, three times."""

    Options = LibraryOptions
    card = CARD

    def build(self) -> nn.Module:
        of = architecture(self.options.architecture)
        assert of is not None, "the options' validator asks for one"
        make, arguments = built(of, self.options.arguments, self.shape, place="model.architecture")
        model = make(**arguments)
        copies = 3 if of.library == "torchvision" and self.shape.row["image"][0] == 1 else 1
        # Before its first layer, so that its weights keep the names that they have in the library's files.
        model.register_forward_pre_hook(partial(_fitted, size=self.options.size, copies=copies))
        return model

    def forward(self, model: nn.Module, batch: Batch, carry: Carry) -> tuple[Tensor, Carry]:
        with misfits_told(self.options.architecture, {"image": batch["image"]}):
            outputs, carry = super().forward(model, batch, carry)
        if not isinstance(outputs, Tensor):
            raise UsageError(
                f"model.arguments: {self.options.architecture} so gives a {type(outputs).__name__}, and one "
                "tensor of logits is wanted: no auxiliary classifiers, no features"
            )
        return outputs, carry
