"""What two-stage detectors share: regions are proposed, and a head says of each what it shows and where."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.data import rowwise
from dlsys.zoo.average_precision import Detections
from dlsys.zoo.layers.boxes import encode
from dlsys.zoo.layers.regions import SHOWS, Proposals, Regions, Truth, answering
from dlsys.zoo.tasks.detect import Detect
from dlsys.zoo.workload import Batch, Carry, Loss

# Streams of a row's random numbers: which of its regions, and of its anchors, it learns from.
REGIONS, ANCHORS = 32, 33


@dataclass(frozen=True)
class Outputs:
    """What a net says of images.

    Attributes:
        proposed: where an object may be.
        learnt: what the head says of those regions that rows learn from; None where nothing is to be learnt.
        found: what was found; None while the net is being trained.
    """

    proposed: Proposals
    learnt: Regions | None
    found: Detections | None


class DetectRegions(Detect):
    """A detector whose model gives `Outputs`, from an image and the `Truth`.

    A row learns from some regions, drawn by its key; its loss is their sum by how many they are.
    """

    @property
    @abstractmethod
    def most(self) -> int:
        """How many regions a row is proposed at most."""

    def forward(self, model: nn.Module, batch: Batch, carry: Carry) -> tuple[Outputs, Carry]:
        return model(batch["image"], self.truth(batch)), carry

    def truth(self, batch: Batch) -> Truth:
        """What rows are to learn, and their chances."""
        boxes, labels = self.targets(batch)
        chance = rowwise.uniform(batch["key"], self.most + labels.shape[1], stream=REGIONS)
        return Truth(boxes, labels, chance)

    def objective(self, outputs: Outputs, batch: Batch) -> Loss:
        boxes, labels = self.targets(batch)
        learnt = outputs.learnt
        assert learnt is not None
        number, overlap = answering(learnt.boxes, boxes, labels)
        shows = learnt.valid & (overlap >= SHOWS)
        label = labels.gather(1, number).clamp(min=0)
        wanted = boxes.gather(1, number[..., None].expand(-1, -1, 4))
        entropy = F.cross_entropy(learnt.classes.mT, (label + 1) * shows, reduction="none")
        # Of a ground's region, what a box would be has no meaning, and may be no number.
        wanted = torch.where(shows[..., None], encode(wanted, learnt.boxes), 0.0)
        said = learnt.offsets.gather(2, label[..., None, None].expand(-1, -1, 1, 4)).squeeze(2)
        missed = F.smooth_l1_loss(said, wanted, reduction="none").sum(2)
        count = learnt.valid.sum(1).clamp(min=1)
        kind = (entropy * learnt.valid).sum(1) / count
        place = (missed * shows).sum(1) / count
        metrics = {"loss_class": kind.mean(), "loss_place": place.mean()}
        return Loss((kind + place).mean(), metrics)

    def detections(self, outputs: Outputs, batch: Batch) -> Detections:
        assert outputs.found is not None
        return outputs.found

    def measure(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        boxes, labels = self.targets(batch)
        invalid = ~outputs.proposed.valid
        _, overlap = answering(boxes, outputs.proposed.boxes, torch.where(invalid, -1, 0))
        there = labels >= 0
        proposed = torch.stack([(there & (overlap >= SHOWS)).sum(), there.sum()])
        return {**super().measure(outputs, batch), "proposed": proposed.double()}

    def summarize(self, sums: dict[str, Tensor]) -> dict[str, float]:
        covered, there = sums["proposed"].tolist()
        return {**super().summarize(sums), "proposal_recall": covered / max(there, 1.0)}


class DetectProposed(DetectRegions):
    """A detector of regions that come with the rows: `proposals` float32 (rows, k, 4), zeros where a row has
    fewer. Its model gives `Outputs`, from an image, its `Proposals` and the `Truth`."""

    @property
    def most(self) -> int:
        return self.shape.row["proposals"][0]

    def forward(self, model: nn.Module, batch: Batch, carry: Carry) -> tuple[Outputs, Carry]:
        boxes = batch["proposals"]
        proposed = Proposals(boxes, boxes[..., 2] > boxes[..., 0])
        return model(batch["image"], proposed, self.truth(batch)), carry
