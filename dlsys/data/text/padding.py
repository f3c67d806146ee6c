"""Rows of unequal length as one batch: padded on the right, as far as the longest row needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dlsys.errors import DataError

# A batch's length is a multiple of it: what GPUs multiply fastest, and fewer lengths to compile for.
_MULTIPLE = 8


def rounded(length: int) -> int:
    """The length of a batch whose longest row has so many tokens."""
    return max(1, -(-length // _MULTIPLE)) * _MULTIPLE


def padded(fields: Mapping[str, Sequence[Any]], numbers: Mapping[str, int], name: str) -> dict[str, Tensor]:
    """Fields of a batch that are lists, as int64 (rows, length), and `attention_mask` of the first one.

    Args:
        fields: each row's list, by field.
        numbers: what pads each field.
        name: the source, as messages say it.

    Raises:
        DataError: a row's is no list of whole numbers, or two of a row are of unequal length.
    """
    found: dict[str, Tensor] = {}
    lengths: list[int] = []
    for field, rows in fields.items():
        lists = [_whole(row, f"{name}: data.pad_with: the field {field!r}") for row in rows]
        own = [len(row) for row in lists]
        if own != (lengths := lengths or own):
            raise DataError(f"{name}: data.pad_with: in a row, {', '.join(fields)} are of unequal length")
        width = rounded(max(own))
        found[field] = torch.full((len(lists), width), numbers[field], dtype=torch.int64)
        for place, row in enumerate(lists):
            found[field][place, : len(row)] = row
    if "attention_mask" not in found:
        width = rounded(max(lengths))
        found["attention_mask"] = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    return found


def _whole(row: Any, place: str) -> Tensor:
    try:
        found = row if isinstance(row, Tensor) else torch.tensor(row)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{place} has a row of no numbers: {error}") from error
    if found.ndim != 1 or (found.is_floating_point() and len(found)):  # an empty list is of no type
        raise DataError(
            f"{place} has a row {found.dtype} {list(found.shape)}, and lists of whole numbers are padded"
        )
    return found
