"""The losses that a job can name: each the mean over a batch's rows."""

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
    if options.name in spec.FOR_CLASSES and not shape.classes:
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
            return partial(_cross_entropy, smoothing=options.label_smoothing, weights=weights)
        case spec.Focal():
            return partial(
                _focal, gamma=options.gamma, weights=_weights(options.class_weights, shape, learnt)
            )
        case spec.Hinge():
            weights = _weights(options.class_weights, shape, learnt)
            return partial(hinge, way=options.way, margin=options.margin, weights=weights)
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


def _cross_entropy(outputs: Tensor, label: Tensor, *, smoothing: float, weights: Tensor | None) -> Tensor:
    losses = F.cross_entropy(outputs, label, label_smoothing=smoothing, reduction="none")
    return (losses if weights is None else losses * weights.to(losses)[label]).mean()


def _focal(outputs: Tensor, label: Tensor, *, gamma: float, weights: Tensor | None) -> Tensor:
    losses = F.cross_entropy(outputs, label, reduction="none")
    # 1 − p = −expm1(−loss), which is exact where p is near 1.
    losses = losses * (-torch.expm1(-losses)).pow(gamma)
    return (losses if weights is None else losses * weights.to(losses)[label]).mean()


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
