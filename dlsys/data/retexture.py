"""Other textures for images, so that a model must go by shape.

The idea is that of Stylized-ImageNet (Geirhos et al. 2019, arXiv:1811.12231): what a shape is filled
with must not tell its class. No network transfers a style here: in a window around each pixel mean and
deviation are kept, and the pattern is another one, of random waves.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from dlsys.data import rowwise
from dlsys.spec.train.regularizer import Retexture

# Streams of a row's random numbers that are this augmentation's own.
_WHETHER, _WAVES = 19, 20
# A pattern is a sum of so many waves, of wavelengths in pixels between these, even in their logarithm.
_COUNT, _SHORTEST, _LONGEST = 4, 2.0, 10.0


def retextured(image: Tensor, key: Tensor, options: Retexture) -> Tensor:
    """The images, some of them with another texture: mean and deviation around each pixel stay.

    Args:
        image: float (N, C, H, W); all channels get the same pattern, each as strong as it was.
        key: int64 (N,): what each image's part in it depends on.
    """
    chosen = rowwise.uniform(key, 1, stream=_WHETHER)[:, 0] < options.share
    found = image.clone()
    if not chosen.any():
        return found
    of = image[chosen]
    mean = _blurred(of, options.scale)
    deviation = (_blurred(of.square(), options.scale) - mean.square()).clamp(min=0).sqrt()
    found[chosen] = mean + deviation * _waves(key[chosen], *image.shape[-2:]).to(image)
    return found


def _blurred(image: Tensor, scale: float) -> Tensor:
    """The mean under a Gaussian window; beyond its edges an image goes on as it is there."""
    height, width = image.shape[-2:]
    reach = math.ceil(2.5 * scale)
    window = [math.exp(-((place / scale) ** 2) / 2) for place in range(-reach, reach + 1)]
    weights = [weight / sum(window) for weight in window]
    # Added up place by place: a convolution may round a row otherwise in another batch.
    around = F.pad(image, (reach,) * 4, mode="replicate")
    down, found = torch.zeros_like(around[:, :, :height]), torch.zeros_like(image)
    for place, weight in enumerate(weights):
        down += weight * around[:, :, place : place + height]
    for place, weight in enumerate(weights):
        found += weight * down[..., place : place + width]
    return found


def _waves(key: Tensor, height: int, width: int) -> Tensor:
    """A pattern of mean 0 and deviation 1 for each key: (N, 1, height, width)."""
    drawn = rowwise.uniform(key, 4 * _COUNT, stream=_WAVES).view(len(key), 4, _COUNT, 1, 1)
    angle, length, phase, weight = drawn.unbind(1)
    across = 2 * math.pi / (_SHORTEST * (_LONGEST / _SHORTEST) ** length)
    y = torch.arange(height, device=key.device)[:, None]
    x = torch.arange(width, device=key.device)
    place = x * torch.cos(2 * math.pi * angle) + y * torch.sin(2 * math.pi * angle)
    pattern = (weight * torch.sin(across * place + 2 * math.pi * phase)).sum(1, keepdim=True)
    deviation, mean = torch.std_mean(pattern, (2, 3), correction=0, keepdim=True)
    return (pattern - mean) / deviation.clamp(min=1e-6)
