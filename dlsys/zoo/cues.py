"""What classes are told by, where two cues disagree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from dlsys.zoo.workload import Batch

_NAME = "shape_bias"


class ShapeBias:
    """Whether images are told by shape or by texture (Geirhos et al. 2019, arXiv:1811.12231).

    Counted are rows whose `texture` is not of the class of their `label`, which is the shape's; what is taken
    for a third class counts for neither. Where there is no such row, there is no figure.
    """

    modes: Mapping[str, Literal["max", "min"]] = {_NAME: "max"}

    def sums(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Of one batch: float64 (2,), the rows taken for their shape's class and for their texture's.

        Args:
            outputs: logits (rows, classes).
            batch: with `label` and `texture`, int64 (rows,).
        """
        said, shape, texture = outputs.detach().argmax(1), batch["label"], batch["texture"]
        split = shape != texture
        by = [(split & (said == cue)).sum() for cue in (shape, texture)]
        return {f"{_NAME}:by": torch.stack(by).to(torch.float64)}

    def owns(self, name: str) -> bool:
        """Whether a sum is of these."""
        return name.startswith(f"{_NAME}:")

    def results(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """The figure, from the sums over a whole split."""
        shape, texture = sums[f"{_NAME}:by"].tolist()
        return {_NAME: shape / (shape + texture)} if shape + texture else {}
