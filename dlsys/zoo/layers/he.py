"""Weights at which signals neither die nor grow through ReLUs (He et al. 2015, arXiv:1502.01852)."""

from __future__ import annotations

from torch import nn


def he_normal(model: nn.Module) -> nn.Module:
    """Draws the weights of convolutions and affine layers from N(0, 2 / inputs of a unit), biases are 0."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    return model
