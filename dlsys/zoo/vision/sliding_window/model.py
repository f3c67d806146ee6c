"""A sliding-window detector, as windows one by one and as a convolution (OverFeat, Sermanet et al. 2013,
arXiv:1312.6229).

A net with dense layers classifies a window of fixed size. Convolutions without padding compute for an image
what they compute for each of its windows, and a dense layer over a window's map is a convolution of that
map's size with the same weights: so the whole image can be given to the net at once, and what windows share
is computed once. Nothing in the net may see more than a window: it has no norms.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.errors import UsageError
from dlsys.zoo.average_precision import Detections
from dlsys.zoo.layers.anchors import BETWEEN
from dlsys.zoo.layers.boxes import iou
from dlsys.zoo.layers.he import he_normal
from dlsys.zoo.tasks.detect_anchors import Answers, DetectAnchors, hard_negatives
from dlsys.zoo.vision.sliding_window.card import CARD, SlidingWindowOptions
from dlsys.zoo.workload import Batch, Loss

# Both convolutions halve: so far apart, in pixels, the windows stand.
_STEP = 4
# The score above which a window counts as showing an object, for `windows_each` and `kept_each`.
_SHOWS = 0.5


class SlidingWindow(DetectAnchors):
    """Boxes in `image`, each of which is a window; class 0 of the logits is the ground."""

    Options = SlidingWindowOptions
    card = CARD
    # A window that shows about half of an object is neither with nor without.
    high, low = 0.5, 0.4
    # Windows of one object overlap less than boxes that are moved to it would, and it has one class: what a
    # shifted window takes it for must go too.
    overlap, apart = 0.2, False

    def build(self) -> nn.Module:
        channels, *sides = self.shape.row["image"]
        if self.options.window > min(sides):
            raise UsageError(
                f"model.window: {self.options.window} pixels are more than the image's shorter side: "
                f"say {min(sides)} at most"
            )
        return SlidingWindowNet(channels, self.shape.classes, self.options)

    def class_loss(self, logits: Tensor, answers: Tensor) -> Tensor:
        losses = F.cross_entropy(logits.mT, answers.clamp(min=-1) + 1, reduction="none")
        losses = torch.where(answers == BETWEEN, 0.0, losses)
        return torch.where(hard_negatives(losses, answers >= 0, self.options.negatives), losses, 0.0)

    def scores(self, logits: Tensor) -> Tensor:
        return logits.softmax(2)[..., 1:]

    def objective(self, outputs: Answers, batch: Batch) -> Loss:
        number, kinds = self.answering(outputs, batch)
        count = (number >= 0).sum(1).clamp(min=1)
        return Loss((self.class_loss(outputs.classes, kinds).sum(1) / count).mean())

    def measure(self, outputs: Answers, batch: Batch) -> dict[str, Tensor]:
        score, label = self.scores(outputs.classes).max(2)
        windows = outputs.anchors.expand(len(score), -1, -1)
        before = self._showing(Detections(windows, score, label), batch)
        after = self._showing(self.detections(outputs, batch), batch)
        sums = {"shown": (before > 0).sum(), "windows": before.sum(), "kept": after.sum()}
        return {**super().measure(outputs, batch), **sums}

    def summarize(self, sums: dict[str, Tensor]) -> dict[str, float]:
        shown = max(1.0, float(sums["shown"]))
        each = {f"{name}_each": float(sums[name]) / shown for name in ("windows", "kept")}
        return {**super().summarize(sums), **each}

    def _showing(self, found: Detections, batch: Batch) -> Tensor:
        """How many of what was found show each object of a batch: (rows, objects)."""
        boxes, labels = self.targets(batch)
        right = (found.labels[..., None] == labels[:, None]) & (labels >= 0)[:, None]
        near = iou(found.boxes, boxes) >= self.high
        return (right & near & (found.scores > _SHOWS)[..., None]).sum(1)


class SlidingWindowNet(nn.Module):
    """From images (rows, channels, height, width) to `Answers`, a window being an anchor that does not
    move."""

    def __init__(self, channels: int, classes: int, options: SlidingWindowOptions) -> None:
        super().__init__()
        self.form, self.window = options.form, options.window
        first, second = options.channels
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, first, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(first, second, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        # What both leave of a window: side 4n + 6 becomes n.
        self.side = (options.window - 6) // _STEP
        self.hidden = nn.Linear(second * self.side**2, options.hidden)
        self.head = nn.Linear(options.hidden, classes + 1)
        he_normal(self)

    def forward(self, image: Tensor) -> Answers:
        across, down = (1 + (side - self.window) // _STEP for side in (image.shape[3], image.shape[2]))
        if self.form == "crops":
            cut = image.unfold(2, self.window, _STEP).unfold(3, self.window, _STEP)
            windows = cut.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
            hidden = self.hidden(self.convolutions(windows).flatten(1)).relu()
            logits = self.head(hidden).unflatten(0, (len(image), -1))
        else:
            maps = self.convolutions(image)
            filters = self.hidden.weight.view(len(self.hidden.weight), -1, self.side, self.side)
            hidden = F.conv2d(maps, filters, self.hidden.bias).relu()
            logits = F.conv2d(hidden, self.head.weight[..., None, None], self.head.bias).flatten(2).mT
        number = torch.arange(down * across, device=image.device)
        corner = torch.stack([number % across, number // across], 1).to(image.dtype) * _STEP
        return Answers(
            logits, logits.new_zeros(*logits.shape[:2], 4), torch.cat([corner, corner + self.window], 1)
        )
