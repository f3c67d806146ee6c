"""RLlib's states as the plain trees that checkpoints hold, and back.

A checkpoint's tree has text for keys, lists, tuples, numbers and tensors. RLlib's have numpy's arrays and
numbers, and keys that are numbers or tuples; they become `{"$kind": …}`.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor

_ARRAY, _NUMBER, _ITEMS, _TEXTS = "$array", "$number", "$items", "$texts"


def encode(tree: Any, place: str = "") -> Any:
    """A state as a plain tree.

    Raises:
        TypeError: something in it has no plain form; the message says where.
    """
    if isinstance(tree, dict):
        if all(isinstance(key, str) for key in tree):
            return {key: encode(value, f"{place}/{key}") for key, value in tree.items()}
        items = [[encode(key, place), encode(value, f"{place}/{key}")] for key, value in tree.items()]
        return {_ITEMS: items}
    if isinstance(tree, list | deque):
        return [encode(value, f"{place}/{index}") for index, value in enumerate(tree)]
    if isinstance(tree, tuple):
        return tuple(encode(value, f"{place}/{index}") for index, value in enumerate(tree))
    if isinstance(tree, np.ndarray):
        if tree.dtype.kind in "US":
            return {_TEXTS: tree.tolist()}
        return {_ARRAY: torch.from_numpy(np.require(tree, requirements=("C", "W"))).reshape(tree.shape)}
    if isinstance(tree, np.generic):
        return {_NUMBER: [tree.dtype.str, tree.item()]}
    if tree is None or isinstance(tree, Tensor | bool | int | float | str):
        return tree
    raise TypeError(f"{place}: a {type(tree).__name__} has no plain form")


def decode(tree: Any) -> Any:
    """The inverse of `encode`; a deque comes back as a list."""
    if isinstance(tree, dict):
        if tree.keys() == {_ITEMS}:
            return {decode(key): decode(value) for key, value in tree[_ITEMS]}
        if tree.keys() == {_ARRAY}:
            return tree[_ARRAY].numpy()
        if tree.keys() == {_NUMBER}:
            kind, value = tree[_NUMBER]
            return np.dtype(kind).type(value)
        if tree.keys() == {_TEXTS}:
            return np.array(tree[_TEXTS])
        return {key: decode(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [decode(value) for value in tree]
    return tuple(decode(value) for value in tree) if isinstance(tree, tuple) else tree
