"""Where a worker's part of a parameter lies, among DeepSpeed's flat tensors and in the parameter."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Slice:
    """This worker's part of a parameter.

    Attributes:
        group: which of the optimizer's flat tensors it lies in.
        offset: where it begins there.
        start: its first element in the flattened parameter.
        size: elements; 0 where this worker has no part.
    """

    group: int
    offset: int
    start: int
    size: int

    def of(self, flat: Tensor) -> Tensor:
        return flat.narrow(0, self.offset, self.size)

    def out_of(self, whole: Tensor) -> Tensor:
        return whole.flatten().narrow(0, self.start, self.size)
