"""Metrics of torchmetrics', by name: sums over rows, so that any number of workers measures the same."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from dlsys.errors import UsageError
from dlsys.own.operators import with_operators
from dlsys.registry import known
from dlsys.spec.rows import Shape
from dlsys.zoo.workload import Batch, labels_of

if TYPE_CHECKING:
    import torchmetrics
else:
    # It imports torchvision where that is installed.
    torchmetrics = with_operators("torchmetrics", lambda: importlib.import_module("torchmetrics"))


class Measures:
    """What a job's `metrics:` names.

    A metric's state is made of each batch alone, added up over batches and workers, and computed once: so its
    state must be of sums. Outputs become probabilities first: torchmetrics takes a batch for logits when any
    number of it is not from 0 to 1, and would decide otherwise for another batch.

    Args:
        wanted: by the name that the figure gets: the class of torchmetrics, or that and its options.
        shape: what the data source hands out.

    Raises:
        UsageError: there is no such metric, it cannot be made, or its state is not of sums.
    """

    def __init__(self, wanted: Mapping[str, str | Mapping[str, Any]], shape: Shape) -> None:
        self._classes = shape.classes
        self._binary = "label" in shape.row and not shape.classes
        self._metrics = {name: self._made(name, told) for name, told in wanted.items()}
        self._kinds = {
            name: {state: getattr(metric, state).dtype for state in metric._defaults}
            for name, metric in self._metrics.items()
        }
        self.modes: dict[str, Literal["max", "min"]] = {
            name: "min" if metric.higher_is_better is False else "max"
            for name, metric in self._metrics.items()
        }

    def sums(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The states of one batch."""
        found: dict[str, Tensor] = {}
        outputs, labels = self._plain(outputs.detach(), labels_of(batch))
        for name, metric in self._metrics.items():
            metric.to(outputs.device).reset()
            metric.update(outputs, labels)
            found |= {f"{name}:{state}": getattr(metric, state) for state in metric._defaults}
        return found

    def owns(self, name: str) -> bool:
        """Whether a sum is of these."""
        return name.partition(":")[0] in self._metrics and ":" in name

    def results(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """The figures, from the sums over a whole split."""
        found = {}
        for name, metric in self._metrics.items():
            metric.reset()
            for state, kind in self._kinds[name].items():
                setattr(metric, state, sums[f"{name}:{state}"].to(metric.device, kind))
            metric._update_count = 1  # it warns of a state that no update made
            found[name] = float(metric.compute())
        return found

    def _plain(self, outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if self._binary:
            return torch.sigmoid(outputs.float()).reshape(labels.shape), labels.long()
        if not self._classes:
            return outputs.float().reshape(labels.shape), labels
        return torch.softmax(outputs.float(), dim=1), labels

    def _made(self, name: str, told: str | Mapping[str, Any]) -> torchmetrics.Metric:
        told = {"name": told} if isinstance(told, str) else told
        kind, options = str(told["name"]), {key: value for key, value in told.items() if key != "name"}
        of_classes = self._classes or self._binary
        room = torchmetrics.classification if of_classes else torchmetrics.regression
        if kind not in room.__all__:
            raise UsageError(f"metrics.{name}: torchmetrics has no {kind!r}.{known(kind, room.__all__)}")
        made = getattr(room, kind)
        taken = inspect.signature(made.__new__ if "__new__" in vars(made) else made).parameters
        task = {"task": "binary"} if self._binary else {"task": "multiclass", "num_classes": self._classes}
        given = {**{key: value for key, value in task.items() if key in taken}, **options}
        try:
            metric: torchmetrics.Metric = made(**given)
        except (TypeError, ValueError, ModuleNotFoundError) as error:
            raise UsageError(f"metrics.{name}: {kind}: {str(error).splitlines()[0]}") from error
        for state, reduction in metric._reductions.items():
            summed = reduction is torchmetrics.utilities.data.dim_zero_sum
            if not summed or not isinstance(getattr(metric, state), Tensor):
                raise UsageError(
                    f"metrics.{name}: the state {state!r} of {kind} is no sum over rows, which several "
                    "workers could add up; some metrics have one with thresholds: 200"
                )
        return metric
