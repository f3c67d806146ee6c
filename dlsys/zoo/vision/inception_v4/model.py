"""Inception-v4 and Inception-ResNet-v2 (Szegedy et al. 2017, arXiv:1602.07261)."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from dlsys.zoo.layers.inception import Conv, Inception, sequence, slimmed
from dlsys.zoo.tasks.classify import Classify
from dlsys.zoo.vision.inception_v4 import plain, residual
from dlsys.zoo.vision.inception_v4.card import CARD, InceptionV4Options
from dlsys.zoo.vision.inception_v4.residual import SCALES, Residual

# Maps that a small image's one convolution gives.
_STEM = 320


class InceptionV4(Classify):
    """Logits (rows, classes) from `image` (rows, channels, height, width)."""

    Options = InceptionV4Options
    card = CARD

    def build(self) -> nn.Module:
        options: InceptionV4Options = self.options
        of = residual if options.residual else plain
        stages = {"large": [of.LARGE], "medium": [of.TO_MEDIUM, of.MEDIUM], "small": [of.TO_SMALL, of.SMALL]}
        steps = of.STEM if options.stem == "large" else (Conv(_STEM, 3),)
        stem, maps = sequence(self.shape.row["image"][0], *slimmed([steps], options.width))
        layers: OrderedDict[str, nn.Module] = OrderedDict(stem=stem)
        for (name, (*halving, repeated)), count in zip(stages.items(), options.modules, strict=True):
            stage = nn.Sequential()
            module: Inception | Residual
            for branches in halving:
                module = Inception(maps, slimmed(branches, options.width))
                stage.append(module)
                maps = module.maps
            for place in range(count):
                branches = slimmed(repeated, options.width)
                if options.residual:
                    last = name == "small" and place == count - 1
                    module = Residual(maps, branches, SCALES[name], last=last)
                else:
                    module = Inception(maps, branches)
                stage.append(module)
                maps = module.maps
            layers[name] = stage
        head = nn.Sequential()
        if options.residual:
            convolution, maps = sequence(maps, *slimmed([(Conv(1536),)], options.width))
            head.append(convolution)
        head.extend(
            [
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Dropout(options.dropout),
                nn.Linear(maps, self.shape.classes),
            ]
        )
        layers["head"] = head
        return nn.Sequential(layers)
