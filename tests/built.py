"""Models of the catalogue, and what is in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dlsys.spec.rows import Shape
from dlsys.zoo.load import load_workload

_Layer = TypeVar("_Layer", bound=nn.Module)


def build(name: str, options: dict[str, Any], *image: int) -> nn.Module:
    return load_workload(name, options, Shape(row={"image": image, "label": ()}, classes=10)).build()


def layers(model: nn.Module, kind: type[_Layer]) -> list[_Layer]:
    return [module for module in model.modules() if isinstance(module, kind)]


def named(model: nn.Module, kind: str) -> list[Any]:
    """Blocks of a library's, by the name of their class."""
    found = [module for module in model.modules() if type(module).__name__ == kind]
    assert found, f"no {kind} is in it any more"
    return found


def first_gradient(make: Callable[[], list[nn.Module]], image: Tensor, depth: int) -> float:
    """The norm of the gradient of the first layer's weights, of a stack of so many."""
    torch.manual_seed(0)
    model = nn.Sequential(*(part for _ in range(depth) for part in make()))
    model(image).square().mean().sqrt().backward()
    weights = next(model.parameters())
    assert weights.grad is not None
    return weights.grad.norm().item()
