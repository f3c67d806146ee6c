"""Averages of weights over training: what is measured, tested and exported in place of the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from dlsys.spec.section import Interval
from dlsys.spec.train.average import EMA, SWA
from dlsys.train.collectives.mean import local

# Behind a phase's name: the average's own, among the optimizers of a state.
AVERAGED = "/averaged"
_KEY = "average"

Named = Sequence[tuple[str, Tensor]]


class Average(torch.optim.Optimizer):
    """The average of a phase's weights.

    It has the form of an optimizer, so that its state is cut, joined, saved and given back as an
    optimizer's is. It makes no step of its own.

    Args:
        named: the weights, and running statistics, by their names in the model.
        options: the checked section.
        steps_per_epoch: updates.
    """

    def __init__(self, named: Named, options: EMA | SWA, steps_per_epoch: int) -> None:
        super().__init__([tensor for _, tensor in named], {"count": 0})
        self.named, self._options, self._steps_per_epoch = named, options, steps_per_epoch
        self._shown = False

    @torch.no_grad()
    def take(self, step: int) -> None:
        """Lets the weights of update number `step` enter, if it is time."""
        if not self._is_due(step):
            return
        group = self.param_groups[0]
        count = group["count"]
        if count == 0:
            for tensor in group["params"]:
                self.state[tensor][_KEY] = tensor.detach().clone()
        else:
            averages, tensors = self._pairs()
            torch._foreach_lerp_(averages, tensors, self._weight(count))
        group["count"] = count + 1

    def _is_due(self, step: int) -> bool:
        options = self._options
        if isinstance(options, EMA):
            return True
        after, every = (self._steps(interval) for interval in (options.after, options.every))
        return step > after and (step - after) % every == 0

    def _steps(self, interval: Interval) -> int:
        return interval.count * (self._steps_per_epoch if interval.unit == "epoch" else 1)

    def _weight(self, count: int) -> float:
        """Of the newest weights, after `count` others."""
        options = self._options
        if isinstance(options, SWA):
            return 1 / (count + 1)
        return 1 - min(options.decay, (1 + count) / (10 + count))

    def _pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        """What this worker holds of the averages, and of the tensors themselves."""
        tensors = self.param_groups[0]["params"]
        return [local(self.state[tensor][_KEY]) for tensor in tensors], [local(tensor) for tensor in tensors]

    @torch.no_grad()
    def show(self, shown: bool) -> bool:
        """Puts the average in the weights' place, or the weights back.

        Returns:
            Whether the other had that place, and there is an average yet.
        """
        if shown == self._shown or not self.state:
            return False
        for average, tensor in zip(*self._pairs(), strict=True):
            kept = tensor.clone()
            tensor.copy_(average)
            average.copy_(kept)
        self._shown = shown
        return True


def statistics(model: nn.Module) -> dict[str, Tensor]:
    """The running statistics of a model's norms, by name: they belong to weights as they were.

    No other buffers: a mask's infinities have no average.
    """
    norms = {f"{name}.": module for name, module in model.named_modules() if isinstance(module, _NormBase)}
    return {
        f"{prefix}{name}": buffer
        for prefix, norm in norms.items()
        for name, buffer in norm.named_buffers(recurse=False)
        if buffer.is_floating_point()
    }


def averaged(model: Mapping[str, Tensor], optimizers: Mapping[str, Any]) -> dict[str, Tensor]:
    """A state's weights with the averages in their places, where there are any.

    Args:
        model, optimizers: as `dlsys.train.strategies.State` has them.
    """
    averages = {
        name: values[_KEY]
        for phase, saved in optimizers.items()
        if phase.endswith(AVERAGED)
        for name, values in saved["state"].items()
    }
    # Tied weights have several names, and the average one of them.
    by_place = {model[name].data_ptr(): average for name, average in averages.items() if average.numel()}
    return {
        name: by_place.get(tensor.data_ptr(), tensor) if tensor.numel() else tensor
        for name, tensor in model.items()
    }
