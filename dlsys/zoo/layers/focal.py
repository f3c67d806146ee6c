"""Focal loss of yes-or-no questions (Lin et al. 2017, arXiv:1708.02002)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def sigmoid_focal(
    logits: Tensor, answers: Tensor, *, gamma: float = 2.0, alpha: float | None = 0.25
) -> Tensor:
    """The loss of each question, of the same shape: what is answered right already counts less.

    Args:
        logits: of yes, any shape.
        answers: 0 or 1, likewise.
        gamma: how much less; 0 is binary cross-entropy, weighed by `alpha`.
        alpha: the weight of a yes, with 1 − alpha for a no; None weighs both as 1.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, answers, reduction="none")
    probability = logits.sigmoid()
    wrong = probability + answers - 2 * probability * answers
    loss = entropy * wrong**gamma
    return loss if alpha is None else loss * (alpha * answers + (1 - alpha) * (1 - answers))


def begin_rare(layer: nn.Conv2d, questions: slice, *, each: int, probability: float = 0.01) -> None:
    """Lets a layer's answers begin as rarely yes, whatever it is given, so that the many that are no do not
    sweep the first steps away (section 4.1).

    Args:
        layer: with a bias; its outputs are groups of `each`.
        questions: which outputs of a group are logits of yes-or-no questions.
        each: outputs of a group.
        probability: of a yes.
    """
    assert layer.bias is not None
    with torch.no_grad():
        layer.weight.view(-1, each, *layer.weight.shape[1:])[:, questions].normal_(std=0.01)
        layer.bias.view(-1, each)[:, questions] = -math.log((1 - probability) / probability)
