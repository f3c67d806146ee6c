"""Small images made larger, for networks whose first strides were meant for large ones."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Enlarge(nn.Module):
    """(rows, channels, height, width) to the same with sides of at least `size` pixels, bilinearly.

    A side that is as long already stays as it is.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        if min(height, width) >= self.size:
            return image
        sides = (max(height, self.size), max(width, self.size))
        return F.interpolate(image, sides, mode="bilinear", align_corners=False)

    def extra_repr(self) -> str:
        return str(self.size)
