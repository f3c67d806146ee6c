"""Nested state as JSON plus a flat table of tensors, and back.

No pickle: what is read back can hold numbers, text, lists, tuples, dicts and tensors, and can run
nothing.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

_TENSOR, _TUPLE = "$tensor", "$tuple"


def flatten(tree: Any, tensors: dict[str, Tensor], prefix: str) -> Any:
    """The tree with each tensor replaced by its name in `tensors`, where it is added."""
    if isinstance(tree, Tensor):
        tensors[prefix] = tree
        return {_TENSOR: prefix}
    if isinstance(tree, dict):
        return {str(key): flatten(value, tensors, f"{prefix}/{key}") for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        items = [flatten(value, tensors, f"{prefix}/{index}") for index, value in enumerate(tree)]
        return {_TUPLE: items} if isinstance(tree, tuple) else items
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    raise TypeError(f"{prefix}: a {type(tree).__name__} cannot be part of a checkpoint")


def unflatten(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of `flatten`; dict keys come back as strings.

    Raises:
        KeyError: a tensor is missing from the table.
    """
    if isinstance(tree, dict):
        if tree.keys() == {_TENSOR}:
            return tensors[tree[_TENSOR]]
        if tree.keys() == {_TUPLE}:
            return tuple(unflatten(value, tensors) for value in tree[_TUPLE])
        return {key: unflatten(value, tensors) for key, value in tree.items()}
    if isinstance(tree, list):
        return [unflatten(value, tensors) for value in tree]
    return tree
