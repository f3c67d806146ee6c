"""Varies the colours of images, each row in a way of its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dlsys.data import rowwise
from dlsys.spec.train.regularizer import DataAugmentation

# A row's random numbers that are this file's own.
_COLOUR = 22
# ITU-R BT.601: what of red, green and blue makes grey, and the two colour differences of it.
_GREY = (0.299, 0.587, 0.114)


def coloured(image: Tensor, key: Tensor, options: DataAugmentation) -> Tensor:
    """Images with brightness, contrast, saturation and hue varied, in this order; 0…1 stays 0…1.

    Grey images have neither saturation nor hue; these are left out.

    Args:
        image: float (N, 1 or 3, H, W) in 0…1.
        key: int64 (N,).
    """
    drawn = (rowwise.uniform(key, 4, stream=_COLOUR) * 2 - 1).to(image)
    bright, contrast, saturation, hue = (draw[:, None, None, None] for draw in drawn.unbind(1))
    if options.brightness:
        image = (image * (1 + bright * options.brightness)).clamp(0, 1)
    if options.contrast:
        mean = grey(image).mean((1, 2, 3), keepdim=True)
        image = (mean + (image - mean) * (1 + contrast * options.contrast)).clamp(0, 1)
    if image.shape[1] != 3:
        return image
    if options.saturation:
        plain = grey(image)
        image = (plain + (image - plain) * (1 + saturation * options.saturation)).clamp(0, 1)
    if options.hue:
        image = turned(image, hue[:, 0, 0, 0] * options.hue).clamp(0, 1)
    return image


def grey(image: Tensor) -> Tensor:
    """The brightness of images (N, C, H, W): (N, 1, H, W)."""
    if image.shape[1] != 3:
        return image.mean(1, keepdim=True)
    return (image * image.new_tensor(_GREY)[:, None, None]).sum(1, keepdim=True)


def turned(image: Tensor, turns: Tensor) -> Tensor:
    """Images (N, 3, H, W) with every hue turned around the axis of greys, which brightness keeps (YIQ's).

    Args:
        turns: (N,), 1 for once around.
    """
    to = torch.tensor([_GREY, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)], dtype=torch.float64)
    angle = turns.double().cpu() * 2 * math.pi
    turn = torch.eye(3, dtype=torch.float64).repeat(len(turns), 1, 1)
    turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
    turn[:, 1, 2], turn[:, 2, 1] = -angle.sin(), angle.sin()
    matrix = (torch.linalg.inv(to) @ turn @ to).to(image)
    return torch.einsum("nij,njhw->nihw", matrix, image)
