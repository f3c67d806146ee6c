"""Viola and Jones's detector (2001, doi:10.1109/CVPR.2001.990517): an attentional cascade of boosted stumps.

Boosting needs sums alone. A step takes the windows that the stages so far let through; their weights follow
from what the stage in the making says of them, so no window's weight is kept. Weighted counts of each
feature's values tell the best stump, and counts of the stage's own scores whether it is done.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dlsys.data import rowwise
from dlsys.zoo.average_precision import Detections
from dlsys.zoo.layers.boxes import iou, suppress
from dlsys.zoo.solved import Solved
from dlsys.zoo.tasks.detect import Detect
from dlsys.zoo.vision.viola_jones.card import CARD, ViolaJonesOptions
from dlsys.zoo.vision.viola_jones.haar import drawn, values, windows
from dlsys.zoo.workload import Batch, Loss, rows_of

# A row's random numbers that are this file's own.
_CHOICE = 41
# Features' values, in deviations of their window, from -_REACH to _REACH; those beyond are as the last.
_BINS, _REACH = 64, 2.0
# Bins of a stage's score, from -1 to 1.
_SCORES = 400
# A window shows an object from so great an overlap on, and none up to so small a one.
_SHOWS, _SHOWS_NOT = 0.75, 0.3
# Windows let through that overlap so much are of one object.
_NEIGHBOURS = 0.4
_MOST = 100


class Seen(NamedTuple):
    """What a cascade makes of images.

    Attributes:
        passed: bool (rows, windows): which windows all stages let through.
        visited: int64 (rows, windows): stages that looked at each.
        window: int64 (windows, 3) of top, left and side.
    """

    passed: Tensor
    visited: Tensor
    window: Tensor


class Cascade(nn.Module):
    """From images (rows, channels, height, width) to what is let through.

    Attributes:
        rectangles, weights: of the features, as `haar.drawn` gives them.
        chosen: the feature of each stump, (stages, stumps).
        edge, sign, say: its threshold, on which side of it objects are, and how much it counts, likewise.
        cut: what each stage's score must reach, (stages,).
        count: stumps of each stage, (stages,).
        done: stages that are done.
    """

    chosen: Tensor
    count: Tensor
    done: Tensor
    rectangles: Tensor
    weights: Tensor

    def __init__(self, options: ViolaJonesOptions) -> None:
        super().__init__()
        self.options = options
        rectangles, weights = drawn(options.features)
        self.register_buffer("rectangles", rectangles)
        self.register_buffer("weights", weights)
        size = options.stages, options.stumps
        self.edge, self.sign, self.say = (
            nn.Parameter(torch.zeros(size), requires_grad=False) for _ in range(3)
        )
        self.cut = nn.Parameter(torch.zeros(options.stages), requires_grad=False)
        self.register_buffer("chosen", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("count", torch.zeros(options.stages, dtype=torch.int64))
        self.register_buffer("done", torch.zeros((), dtype=torch.int64))

    def forward(self, image: Tensor) -> Seen:
        grey = image.mean(1)
        told = self.options
        window = windows(grey.shape[1], grey.shape[2], told.side, told.growth, told.step).to(image.device)
        visited = torch.zeros(len(grey), len(window), dtype=torch.int64, device=image.device)
        row, place = torch.cartesian_prod(
            torch.arange(len(grey), device=image.device), torch.arange(len(window), device=image.device)
        ).unbind(1)
        for stage in range(int(self.done)):
            visited[row, place] += 1
            stays = self.score(grey, row, window[place], stage) >= self.cut[stage]
            row, place = row[stays], place[stays]
        passed = torch.zeros_like(visited, dtype=torch.bool)
        passed[row, place] = True
        return Seen(passed, visited, window)

    def values(self, grey: Tensor, row: Tensor, window: Tensor, feature: Tensor | slice) -> Tensor:
        """Some features of windows (n, 3), as stumps see them: (n, features)."""
        found = values(grey, row, window, self.rectangles[feature], self.weights[feature])
        return found.abs() if self.options.contrast == "any" else found

    def score(self, grey: Tensor, row: Tensor, window: Tensor, stage: int) -> Tensor:
        """What a stage says of windows (n, 3), from -1 to 1: (n,)."""
        stumps = slice(0, int(self.count[stage]))
        feature = self.chosen[stage, stumps]
        found = self.values(grey, row, window, feature)
        votes = torch.where(found > self.edge[stage, stumps], 1.0, -1.0) * self.sign[stage, stumps]
        say = self.say[stage, stumps]
        return (votes * say).sum(1) / say.sum().clamp(min=1e-9)


class ViolaJones(Solved, Detect):
    """Boxes of objects of one kind in `image`; of several classes, all are one."""

    Options = ViolaJonesOptions
    card = CARD
    shown = 0.0

    def build(self) -> Cascade:
        return Cascade(self.options)

    def overlaps(self, window: Tensor, batch: Batch) -> Tensor:
        """Each window's overlap with the object that it shows best: (rows, windows)."""
        boxes, labels = self.targets(batch)
        overlap = iou(_boxes(window)[None].to(boxes), boxes).masked_fill((labels < 0)[:, None], 0.0)
        return overlap.amax(2) if overlap.shape[2] else overlap.new_zeros(overlap.shape[:2])

    def statistics(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        assert isinstance(model, Cascade)
        seen = model(batch["image"])
        overlap = self.overlaps(seen.window, batch)
        shows, other = seen.passed & (overlap >= _SHOWS), seen.passed & (overlap < _SHOWS_NOT)
        # Of the others, those of the least random numbers, which the row alone decides.
        chance = rowwise.uniform(batch["key"], seen.window.shape[0], stream=_CHOICE).masked_fill(~other, 2.0)
        most = min(self.options.negatives, chance.shape[1])
        least = chance.kthvalue(most, dim=1, keepdim=True).values
        other &= chance <= least
        row, place = torch.where(shows | other)
        is_object = shows[row, place].long()
        grey, stage = batch["image"].mean(1), min(int(model.done), self.options.stages - 1)
        window = seen.window[place]
        score = model.score(grey, row, window, stage).double()
        found = model.values(grey, row, window, slice(None))
        # exp(-y F(x)) of what the stage says so far.
        say = float(model.say[stage, : int(model.count[stage])].sum())
        weight = torch.exp(-(2 * is_object - 1) * score * say)
        bins = ((found / _REACH + 1) / 2 * _BINS).long().clamp(0, _BINS - 1)
        features = len(model.rectangles)
        place_of = (is_object[:, None] * features + torch.arange(features, device=bins.device)) * _BINS + bins
        size = 2 * features * _BINS
        counts = torch.bincount(place_of.flatten(), weight[:, None].expand_as(bins).flatten(), minlength=size)
        steps = ((score + 1) / 2 * _SCORES).long().clamp(0, _SCORES - 1) + _SCORES * is_object
        return {
            "loss": self.objective(seen, batch).value.double() * rows_of(batch),
            "values": counts.view(2, features, _BINS),
            "scores": torch.bincount(steps, minlength=2 * _SCORES).double().view(2, _SCORES),
        }

    def solve(self, model: nn.Module, sums: Mapping[str, Tensor]) -> Mapping[str, float]:
        assert isinstance(model, Cascade)
        stage = int(model.done)
        others, objects = sums["scores"]
        if stage == self.options.stages or not others.sum() or not objects.sum():
            return {"stages": float(stage), "passed": 0.0}
        passed = 1.0
        if int(model.count[stage]):
            # The highest cut that lets enough objects through.
            above = objects.flip(0).cumsum(0).flip(0) / objects.sum()
            place = int((above >= self.options.keep).nonzero().max())
            passed = float(others[place:].sum() / others.sum())
            if passed <= 1 - self.options.refuse or int(model.count[stage]) == self.options.stumps:
                model.cut[stage] = 2 * place / _SCORES - 1
                model.done += 1
                return {"stages": float(stage + 1), "passed": passed}
        self._boost(model, stage, sums["values"], others.sum(), objects.sum())
        return {"stages": float(stage), "passed": passed}

    def _boost(self, model: Cascade, stage: int, counts: Tensor, others: Tensor, objects: Tensor) -> None:
        """Adds the stump that errs the least; objects and others weigh the same before the first."""
        of_others, of_objects = counts[0] / others, counts[1] / objects
        below = of_objects.cumsum(1), of_others.cumsum(1)
        total = of_objects.sum(1, keepdim=True), of_others.sum(1, keepdim=True)
        # Objects are above the edge, or below it.
        wrong = torch.stack([below[0] + total[1] - below[1], below[1] + total[0] - below[0]])
        share = wrong / (total[0] + total[1])
        least = int(share.argmin())
        sign, rest = divmod(least, share[0].numel())
        feature, place = divmod(rest, _BINS)
        error = float(share.flatten()[least].clamp(1e-4, 1 - 1e-4))
        stump = int(model.count[stage])
        model.chosen[stage, stump] = feature
        model.edge[stage, stump] = (2 * (place + 1) / _BINS - 1) * _REACH
        model.sign[stage, stump] = 1 - 2 * sign
        model.say[stage, stump] = 0.5 * math.log((1 - error) / error)
        model.count[stage] += 1

    def objective(self, outputs: Seen, batch: Batch) -> Loss:
        """The share of windows judged wrongly: those that show an object and do not pass, and those that show
        none and do; each of them half."""
        overlap = self.overlaps(outputs.window, batch)
        shows, other = overlap >= _SHOWS, overlap < _SHOWS_NOT
        missed = (shows & ~outputs.passed).sum(1) / shows.sum(1).clamp(min=1)
        wrong = (other & outputs.passed).sum(1) / other.sum(1).clamp(min=1)
        return Loss(((missed + wrong) / 2).mean())

    def detections(self, outputs: Seen, batch: Batch) -> Detections:
        found = [self._found(_boxes(outputs.window[passed]).float()) for passed in outputs.passed]
        most = max((len(boxes) for boxes, _ in found), default=0)
        boxes = outputs.window.new_zeros(len(found), most, 4, dtype=torch.float32)
        scores = boxes.new_zeros(len(found), most)
        labels = outputs.window.new_full((len(found), most), -1)
        for row, (own, score) in enumerate(found):
            boxes[row, : len(own)], scores[row, : len(own)], labels[row, : len(own)] = own, score, 0
        return Detections(boxes, scores, labels)

    def _found(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Of windows let through: the mean of each with its neighbours, those with the most first."""
        near = (iou(boxes, boxes) >= _NEIGHBOURS).float()
        count = near.sum(1)
        order = count.argsort(descending=True, stable=True)
        order = order[count[order] >= self.options.neighbours]
        means = (near @ boxes / count[:, None])[order]
        kept = suppress(means, 0.2)
        return means[kept][:_MOST], (count[order][kept] / (count[order][kept] + 10))[:_MOST]

    def measure(self, outputs: Seen, batch: Batch) -> dict[str, Tensor]:
        found = self.detections(outputs, batch)
        boxes, labels = self.targets(batch)
        half = iou(found.boxes.to(boxes), boxes) >= 0.5
        half &= (found.labels >= 0)[..., None] & (labels >= 0)[:, None]
        right = half.any(2).sum() if half.shape[2] else half.sum()
        hit = half.any(1).sum() if half.shape[1] else half.sum()
        return {
            **super().measure(outputs, batch),
            "detected": torch.stack([right, (found.labels >= 0).sum()]).double(),
            "recalled": torch.stack([hit, (labels >= 0).sum()]).double(),
            "depth": outputs.visited.double().mean(1).sum() / self.options.stages,
        }

    def summarize(self, sums: dict[str, Tensor]) -> dict[str, float]:
        shares = {
            name: float(sums[key][0] / sums[key][1].clamp(min=1))
            for name, key in (("precision", "detected"), ("recall", "recalled"))
        }
        return {**super().summarize(sums), **shares, "depth": float(sums["depth"] / sums["rows"])}


def _boxes(window: Tensor) -> Tensor:
    """Windows (n, 3) of top, left and side as left, top, right and bottom."""
    top, left, side = window.unbind(1)
    return torch.stack([left, top, left + side, top + side], 1)
