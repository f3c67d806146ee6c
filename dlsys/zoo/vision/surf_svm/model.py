"""A linear SVM on a bag of SURF's features (Bay et al. 2008; Csurka et al. 2004 for the bag).

The codebook is a layer that is trained with the SVM: each feature is shared out among the words, softly, as
in NetVLAD (Arandjelović et al. 2016, arXiv:1511.07247). Clusters of k-means would have to be found on all
training rows before the first step. A layer begins at random and learns from the same batches as all else:
it is the same on every worker, in every checkpoint and after a resume, without a pass over the data.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlsys.zoo.layers.enlarge import Enlarge
from dlsys.zoo.tasks.svm import LinearSVM, Standardized, grey
from dlsys.zoo.vision.surf_svm import surf
from dlsys.zoo.vision.surf_svm.card import CARD, SURFOptions


class SURF(nn.Module):
    """(rows, channels, height, width) to (rows, keypoints, 66): descriptors, whether blobs are bright (±1),
    and 1; all zeros where an image has fewer."""

    def __init__(self, options: SURFOptions) -> None:
        super().__init__()
        self.options = options

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        sums = surf.integral(grey(image))
        found = surf.detect(
            sums,
            self.options.keypoints,
            octaves=self.options.octaves,
            threshold=self.options.threshold,
        )
        described = surf.describe(sums, found, surf.orient(sums, found))
        there = torch.ones_like(found.bright)
        features = torch.cat([described, found.bright[..., None], there[..., None]], -1)
        return features.where(found.there[..., None], 0.0).to(image.dtype)


class Bag(nn.Module):
    """(rows, keypoints, 66) to (rows, words): how often each word occurs, 1 on average; zeros of none."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.assign = nn.Linear(65, words)
        # Descriptors have length 1: with weights of this size, words differ from the start.
        nn.init.normal_(self.assign.weight, std=4.0)
        nn.init.zeros_(self.assign.bias)

    def forward(self, features: Tensor) -> Tensor:
        described, there = features[..., :-1], features[..., -1:]
        shares: Tensor = self.assign(described).softmax(-1) * there
        return shares.sum(1) / there.sum(1).clamp(min=1) * shares.shape[-1]


class SURFSVM(LinearSVM):
    """Scores (rows, classes) of `image`."""

    Options = SURFOptions
    card = CARD

    def features(self) -> nn.Module:
        if self.options.features == "raw":
            return Standardized()
        return nn.Sequential(Enlarge(self.options.size), SURF(self.options), Bag(self.options.words))
