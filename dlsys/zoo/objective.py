"""The losses that a job can name: each the mean over a batch's rows.

A row may have a label for each of its places: its loss is then the mean over those that count, whose label is
0 or more, and 0 where none does. So any number of workers computes the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dlsys.errors import UsageError
from dlsys.own.imports import import_own
from dlsys.own.options import arguments
from dlsys.spec.rows import Shape
from dlsys.spec.train import objective as spec

# From outputs and labels or targets to the mean over rows, a scalar.
LossFunction = Callable[[Tensor, Tensor], Tensor]


def loss_function(options: spec.Objective, shape: Shape, learnt: Mapping[str, Any]) -> LossFunction:
    """The loss of a job's `loss:` section.

    Args:
        options: the section.
        shape: what the data source hands out.
        learnt: what was learnt from the data; `balanced` takes the classes' counts from it.

    Raises:
        UsageError: it does not fit the rows.
        WorkloadError: the user's function cannot be imported.
    """
    if isinstance(options, spec.OwnLoss):
        function = import_own(options.name, "loss.name")
        own = arguments(
            function, options.options, owner=options.name, field="loss", besides=_first_two(function)
        )
        return partial(_own, function, own)
    if options.name in spec.FOR_PIXELS and not shape.classes:
        raise UsageError(
            f"loss.name: {options.name} is of classes, and these rows have {', '.join(shape.row)}"
        )
    if options.name in spec.FOR_TARGETS and "target" not in shape.row:
        raise UsageError(
            f"loss.name: {options.name} is of a target, and these rows have {', '.join(shape.row)}"
        )
    match options:
        case spec.CrossEntropy():
            weights = _weights(options.class_weights, shape, learnt)
            return partial(cross_entropy, smoothing=options.label_smoothing, weights=weights)
        case spec.Focal():
            return partial(focal, gamma=options.gamma, weights=_weights(options.class_weights, shape, learnt))
        case spec.Hinge():
            weights = _weights(options.class_weights, shape, learnt)
            return partial(hinge, way=options.way, margin=options.margin, weights=weights)
        case spec.Dice():
            if "mask" not in shape.row:
                raise UsageError(f"loss.name: dice is of a mask, and these rows have {', '.join(shape.row)}")
            return partial(dice, smooth=options.smooth)
        case spec.SquaredError():
            return lambda outputs, target: F.mse_loss(outputs.reshape(target.shape), target)
        case spec.AbsoluteError():
            return lambda outputs, target: F.l1_loss(outputs.reshape(target.shape), target)
        case spec.Huber():
            return lambda outputs, target: F.huber_loss(
                outputs.reshape(target.shape), target, delta=options.delta
            )


def _first_two(function: Any) -> list[str]:
    """The parameters that get outputs and labels, whatever they are called."""
    code = getattr(function, "__code__", None)
    return list(code.co_varnames[: min(2, code.co_argcount)]) if code else []


def _own(function: Callable[..., Any], options: Mapping[str, Any], outputs: Tensor, labels: Tensor) -> Tensor:
    loss = function(outputs, labels, **options)
    if not isinstance(loss, Tensor):
        raise UsageError(
            f"loss.name: {function.__name__} gives a {type(loss).__name__}, and a tensor is wanted"
        )
    return loss.mean()


def _weights(said: Sequence[float] | str | None, shape: Shape, learnt: Mapping[str, Any]) -> Tensor | None:
    """float32 (classes,)."""
    if said is None:
        return None
    if said == "balanced":
        counts = learnt.get("target", {}).get("counts")
        if not counts:
            raise UsageError(
                "loss.class_weights: this source does not count its classes: give a factor for each"
            )
        found = torch.tensor(counts, dtype=torch.float64)
        return (found.sum() / (len(found) * found.clamp(min=1))).float()
    if len(said) != shape.classes:
        raise UsageError(
            f"loss.class_weights: has {len(said)} factors, and there are {shape.classes} classes"
        )
    return torch.tensor([float(factor) for factor in said])


def cross_entropy(
    outputs: Tensor, label: Tensor, *, smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """The mean over rows of the cross-entropy of logits (rows, classes, …), of labels int64 (rows, …)."""
    losses = F.cross_entropy(outputs, _told(label), label_smoothing=smoothing, reduction="none")
    return _mean_of_rows(losses, label, weights)


def focal(outputs: Tensor, label: Tensor, *, gamma: float = 2.0, weights: Tensor | None = None) -> Tensor:
    """Likewise, × (1 − p)^gamma with the label's probability p (Lin et al. 2017)."""
    losses = F.cross_entropy(outputs, _told(label), reduction="none")
    # 1 − p = −expm1(−loss), which is exact where p is near 1.
    return _mean_of_rows(losses * (-torch.expm1(-losses)).pow(gamma), label, weights)


def hinge(
    outputs: Tensor,
    label: Tensor,
    *,
    way: str = "crammer-singer",
    margin: float = 1.0,
    weights: Tensor | None = None,
) -> Tensor:
    """The mean over rows of the hinge loss of several classes: a scalar.

    Args:
        outputs: scores (rows, classes).
        label: int64 (rows,).
        way: `crammer-singer` (JMLR 2, 2001): max(0, margin + the largest other score − the label's);
            `one-vs-rest`: Σ over classes of max(0, margin − ±score), with + for the label's class.
        weights: a factor for each class's rows, (classes,).
    """
    own = F.one_hot(label, outputs.shape[1]).bool()
    if way == "one-vs-rest":
        losses = F.relu(margin - torch.where(own, outputs, -outputs)).sum(1)
    else:
        others = outputs.masked_fill(own, -torch.inf).amax(1)
        losses = F.relu(margin + others - outputs.gather(1, label[:, None])[:, 0])
    return (losses if weights is None else losses * weights.to(losses)[label]).mean()


def dice(outputs: Tensor, label: Tensor, *, smooth: float = 1.0) -> Tensor:
    """The mean over rows of 1 − Dice's coefficient, Σ 2pg / Σ (p² + g²), with probabilities p and labels g
    (Milletari et al. 2016); the mean over the classes but the first. A row of which nothing counts has 0.

    Args:
        outputs: logits (rows, classes, …), of 2 classes or more.
        label: int64 (rows, …).
        smooth: pixels added above and below the line.
    """
    counts = (label >= 0).flatten(1)[:, None]
    likely = outputs.softmax(1).flatten(2)[:, 1:] * counts
    kinds = torch.arange(1, outputs.shape[1], device=label.device)
    so = (label.flatten(1)[:, None] == kinds[:, None]).to(likely)
    both, each = (likely * so).sum(2), (likely.square() + so).sum(2)
    return (1 - (2 * both + smooth) / (each + smooth)).mean()


def _told(label: Tensor) -> Tensor:
    """Labels with torch's own number for those that do not count."""
    return label.masked_fill(label < 0, -100)


def _mean_of_rows(losses: Tensor, label: Tensor, weights: Tensor | None) -> Tensor:
    """The mean over rows of the mean over each row's labels that count, whose losses others have as 0."""
    if weights is not None:
        losses = losses * weights.to(losses)[label.clamp(min=0)]
    if losses.dim() == 1:
        return losses.mean()
    return (losses.flatten(1).sum(1) / (label >= 0).flatten(1).sum(1).clamp(min=1)).mean()
