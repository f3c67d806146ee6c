"""A plain torch model as a workload: a class or function that returns an `nn.Module`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parameter import is_lazy

from dlsys.errors import UsageError, WorkloadError
from dlsys.own.frames import user_traceback
from dlsys.registry import known
from dlsys.spec.rows import Shape
from dlsys.zoo.metrics import correct
from dlsys.zoo.workload import Batch, Carry, Loss, Workload, rows_of

# Fields that a model is not given.
_NO_INPUT = ("label", "target", "targets", "key")
# What torch says of inputs that a layer does not take.
_MISFIT = re.compile(
    r"(?i)\b(shapes?|size of tensor|dimensions?|channels|dtype|scalar type|expected|argument)\b"
)


@contextmanager
def misfits_told(name: str, given: Mapping[str, Tensor]) -> Iterator[None]:
    """Tells a user by the model's name that it does not take the inputs given.

    Raises:
        UsageError: for what torch raised of sizes and kinds, outside the user's own files.
    """
    try:
        yield
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        # A peer that is gone and memory that is short are no misfit: such runs are tried again.
        if not _MISFIT.search(str(error)) or user_traceback(error):
            raise
        text = str(error).strip().splitlines() or [type(error).__name__]
        shapes = ", ".join(f"{field} of shape {tuple(tensor.shape)}" for field, tensor in given.items())
        raise UsageError(
            f"workload: {name} does not take {shapes}: {text[0]}",
            hint="Its options are under model:; `dlsys zoo show` tells a source's shapes.",
        ) from error


class PlainModel(Workload):
    """Feeds a batch's input to a model and takes the loss that its labels call for, if the job names none.

    `label` of whole numbers: cross-entropy of logits (rows, classes), and accuracy. A float
    `label`: binary cross-entropy of logits (rows,) or (rows, 1), and accuracy. `target`: mean
    squared error.

    Args:
        factory: makes a new model.
        options: the factory's keyword arguments.
        shape: what the data source hands out.
        inputs: the fields that the model is given; by default the first one.
        name: what the model is called in messages.

    Raises:
        WorkloadError: the source has no input field, or neither `label` nor `target`.
    """

    def __init__(
        self,
        factory: Callable[..., nn.Module],
        options: Mapping[str, Any],
        shape: Shape,
        inputs: Sequence[str] = (),
        name: str = "a model",
    ) -> None:
        super().__init__(options, shape)
        for name in inputs:
            if name not in shape.row:
                raise UsageError(f"inputs: rows have no {name!r}.{known(name, shape.row)}")
        inputs = inputs or [name for name in shape.row if name not in _NO_INPUT][:1]
        if not inputs or not {"label", "target"} & set(shape.row):
            raise WorkloadError(
                "a plain model needs an input field and a label or target, this source has: "
                + ", ".join(shape.row),
                hint="write a dlsys.zoo.workload.Workload that says what to do with these fields",
            )
        self._factory = factory
        self._inputs, self._name = tuple(inputs), name
        self.metrics = {"accuracy": "max"} if "label" in shape.row else {}  # type: ignore[misc]

    def build(self) -> nn.Module:
        model = self._factory(**self.options)
        if not isinstance(model, nn.Module):
            raise WorkloadError(f"{self._name} must return an nn.Module, got {type(model).__name__}")
        inner = getattr(model, "_orig_mod", None)
        if isinstance(inner, nn.Module):
            # What torch.compile returns names its parameters otherwise; compiled in place, they keep theirs.
            inner._compiled_call_impl = model.dynamo_ctx(inner._call_impl)  # type: ignore[operator]
            model = inner
        if any(is_lazy(parameter) for parameter in model.parameters()):
            # Sizes come from a row's shape. One whose numbers no zeros can stand for stays lazy, and is told.
            with torch.no_grad(), suppress(Exception):
                self._call(
                    model.eval(), {name: torch.zeros(1, *self.shape.row[name]) for name in self._inputs}
                )
            model.train()
        return model

    def forward(self, model: nn.Module, batch: Batch, carry: Carry) -> tuple[Tensor, Carry]:
        with misfits_told(self._name, {name: batch[name] for name in self._inputs}):
            outputs = self._call(model, batch)
        return self._checked(self._taken(outputs), batch), carry

    def _call(self, model: nn.Module, batch: Batch) -> Any:
        """One input as the first argument, several by their names."""
        if len(self._inputs) == 1:
            return model(batch[self._inputs[0]])
        return model(**{name: batch[name] for name in self._inputs})

    def _taken(self, outputs: Any) -> Tensor:
        """The logits or values in what a model gives: itself, `logits` of a mapping, the first of many."""
        if isinstance(outputs, Mapping):
            found = outputs.get("logits", next(iter(outputs.values())) if len(outputs) == 1 else None)
        elif isinstance(outputs, list | tuple) and outputs:
            found = getattr(outputs, "logits", outputs[0])
        else:
            found = getattr(outputs, "logits", outputs)
        if isinstance(found, Tensor):
            return found
        keys = f" with {', '.join(map(str, outputs))}" if isinstance(outputs, Mapping) else ""
        raise UsageError(
            f"workload: {self._name} gives a {type(outputs).__name__}{keys}, and one tensor is wanted: name "
            "it logits, put it first, or write a dlsys.zoo.workload.Workload"
        )

    def _checked(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Holds outputs against the classes or targets of the rows."""
        told = batch["label"] if "label" in batch else batch["target"]
        if "label" not in batch or told.is_floating_point():
            fits, wanted = outputs.numel() == told.numel(), tuple(told.shape)
        else:
            wanted = (len(told), self.shape.classes, *told.shape[1:])
            fits = outputs.shape == wanted
        if not fits:
            raise UsageError(
                f"workload: {self._name} gives outputs of shape {tuple(outputs.shape)}, and for these rows "
                f"and classes {wanted} is wanted"
            )
        return outputs

    def objective(self, outputs: Tensor, batch: Batch) -> Loss:
        if "label" not in batch:
            target = batch["target"]
            return Loss((self.loss or F.mse_loss)(outputs.reshape(target.shape), target))
        label = batch["label"]
        if self.loss is None and label.is_floating_point():
            return Loss(F.binary_cross_entropy_with_logits(outputs.reshape(label.shape), label))
        return Loss((self.loss or F.cross_entropy)(outputs, batch.get("mixed", label)))

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        sums = {"loss": self.objective(outputs, batch).value * rows_of(batch)}
        if "label" in batch:
            label = batch["label"]
            if label.is_floating_point():
                positive = outputs.reshape(label.shape) > 0
                sums["accuracy"] = (positive == (label > 0.5)).sum().to(torch.float64)
            else:
                sums["accuracy"] = correct(outputs, label)
        return sums
