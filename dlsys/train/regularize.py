"""Regularizers by name: what they do to gradients, to weights after an update, and to dropout.

Penalties enter as gradients, after the workers' gradients have been averaged: a worker adds them
once, whatever the number of workers and micro-batches. All arithmetic is elementwise or a norm, so
that parameters may be DTensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from dlsys.errors import UsageError
from dlsys.spec.section import Section
from dlsys.spec.train import regularizer as spec

NamedParameters = Iterable[tuple[str, nn.Parameter]]
_Spec = TypeVar("_Spec", bound=Section)


class Regularizers:
    """All regularizers of a job.

    Args:
        specs: the checked `regularize:` section; each name at most once.
    """

    def __init__(self, specs: Sequence[spec.Regularizer]) -> None:
        self._specs = tuple(specs)
        self._l1 = self._l2 = 0.0  # Factors of sign(w) and of w in the penalties' gradient.
        if l1 := self._find(spec.L1):
            self._l1 += l1.strength
        if l2 := self._find(spec.L2):
            self._l2 += 2 * l2.strength
        if elastic := self._find(spec.ElasticNet):
            self._l1 += elastic.strength * elastic.l1_ratio
            self._l2 += elastic.strength * (1 - elastic.l1_ratio)

    def _find(self, kind: type[_Spec]) -> _Spec | None:
        return next((found for found in self._specs if isinstance(found, kind)), None)

    @property
    def clip_norm(self) -> float | None:
        """The norm that gradient-clipping cuts to."""
        found = self._find(spec.GradientClipping)
        return found.norm if found else None

    @property
    def augmentation(self) -> spec.DataAugmentation | None:
        """How training images are varied."""
        return self._find(spec.DataAugmentation)

    @property
    def mc_samples(self) -> int:
        """Stochastic passes of an evaluation; 0 asks for one with dropout off."""
        found = self._find(spec.MCDropout)
        return found.samples if found else 0

    def prepare(self, model: nn.Module) -> None:
        """Sets the rate of every dropout layer.

        Raises:
            UsageError: dropout or mc-dropout is asked for, and the model has no dropout layer.
        """
        dropout = self._find(spec.Dropout)
        wanted = dropout or self._find(spec.MCDropout)
        if wanted is None:
            return
        layers = [module for module in model.modules() if _drops(module)]
        if not layers:
            raise UsageError(
                f"regularize: {wanted.name} needs a dropout layer, and {type(model).__name__} has none: "
                f"add nn.Dropout to the model, or take {wanted.name} out"
            )
        if dropout is None:
            return
        for layer in layers:
            setattr(layer, "p" if isinstance(layer, _DropoutNd) else "dropout", dropout.p)

    @contextmanager
    def stochastic(self, model: nn.Module) -> Iterator[None]:
        """Evaluation with dropout on: batch norms and all else stay in eval mode."""
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        for module, _ in modes:
            # A transformer layer's fused eval path would skip the dropout layers inside it.
            if _drops(module) or isinstance(module, nn.TransformerEncoderLayer):
                module.training = True
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode

    @torch.no_grad()
    def penalize(self, named_parameters: NamedParameters) -> None:
        """Adds the gradients of l1, l2 and elastic-net to `.grad`, where there is one."""
        if not (self._l1 or self._l2):
            return
        for weight in _weights(named_parameters):
            if weight.grad is None:
                continue
            if self._l2:
                weight.grad.add_(weight, alpha=self._l2)
            if self._l1:
                weight.grad.add_(torch.sign(weight), alpha=self._l1)

    @torch.no_grad()
    def after_step(self, named_parameters: NamedParameters, lr: float) -> None:
        """Shrinks weights (weight-decay), then bounds each unit's norm (max-norm).

        A unit's incoming weights are `weight[i]`, of whatever shape; those within the limit are
        left as they are, bit for bit.

        Args:
            named_parameters: those that the update changed.
            lr: the rate of that update.
        """
        decay, bound = self._find(spec.WeightDecay), self._find(spec.MaxNorm)
        if decay is None and bound is None:
            return
        for weight in _weights(named_parameters):
            if decay:
                weight.mul_(1 - lr * decay.strength)
            if bound:
                dims = tuple(range(1, weight.dim()))
                norm = torch.linalg.vector_norm(weight, dim=dims, keepdim=True)
                weight.mul_((bound.limit / norm).clamp(max=1.0))


def _weights(named_parameters: NamedParameters) -> Iterator[nn.Parameter]:
    return (parameter for _, parameter in named_parameters if parameter.dim() >= 2)


def _drops(module: nn.Module) -> bool:
    if isinstance(module, nn.RNNBase):
        return module.num_layers > 1  # torch drops between layers only
    return isinstance(module, _DropoutNd | nn.MultiheadAttention)


def clip(parameters: Iterable[nn.Parameter], norm: float | None, value: float | None) -> Tensor:
    """Clips gradients in place, first the whole gradient by its norm, then each element.

    Args:
        parameters: those without a gradient are passed over.
        norm: the whole gradient is scaled down to this Euclidean norm; None leaves it.
        value: each element is cut to ± this value; None leaves it.

    Returns:
        The whole gradient's norm before clipping: a scalar, not finite if the gradient is not.
    """
    parameters = [parameter for parameter in parameters if parameter.grad is not None]
    # As torch's get_total_norm does it, less its sorting by device: this runs at every step.
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch._foreach_norm(gradients) if gradients else [torch.zeros(())]
    total: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    # A DTensor has it; asking for the class itself would import half a second of code.
    whole = getattr(total, "full_tensor", None)
    if whole is not None:
        total = whole()
    scale(parameters, total, norm, value)
    return total


def scale(
    parameters: Iterable[nn.Parameter],
    total: Tensor,
    norm: float | None,
    value: float | None,
    *,
    foreach: bool | None = None,
) -> None:
    """Clips gradients as `clip` does, by a norm that is known.

    One that is not finite leaves them: it would spoil all, and hide which is bad.

    Args:
        total: the whole gradient's norm, a scalar.
        foreach: False where DTensors and plain tensors are mixed, which torch's kernels over many
            tensors at once do not take.
    """
    if (norm is None and value is None) or not math.isfinite(float(total)):
        return
    parameters = list(parameters)
    if norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, norm, total, foreach=foreach)
    if value is not None:
        nn.utils.clip_grad_value_(parameters, value, foreach=foreach)
