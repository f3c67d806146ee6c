"""Local response normalization (Krizhevsky et al. 2012, section 3.3)."""

from __future__ import annotations

from torch import nn


def response_norm() -> nn.LocalResponseNorm:
    """b = a / (2 + 10⁻⁴ Σ a²)^0.75, the sum over five neighbouring maps."""
    # torch divides alpha by the number of maps.
    return nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)
