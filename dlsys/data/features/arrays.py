"""From Arrow's arrays to numpy's and back.

`to_numpy`, `pa.array` and `pa.scalar` import pandas where it is installed, and so do functions of
`pyarrow.compute` that are given a plain value: a third of a second and some tens of MB in every process that
reads a table. Nothing here does.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def numpy_of(array: pa.Array | pa.ChunkedArray, null: float = np.nan) -> np.ndarray:
    """The values of numbers, or of booleans without null, to read only.

    Args:
        null: what stands for null; the array's type must have it.
    """
    if isinstance(array, pa.ChunkedArray):
        parts = [numpy_of(chunk, null) for chunk in array.chunks]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
    if pa.types.is_boolean(array.type):
        return np.from_dlpack(pc.cast(array, pa.uint8())).view(np.bool_)
    if not array.null_count:
        return np.from_dlpack(array)
    bare = pa.Array.from_buffers(array.type, len(array), [None, array.buffers()[1]], offset=array.offset)
    values = np.from_dlpack(bare).copy()
    values[numpy_of(pc.is_null(array))] = null
    return values


def arrow_of(values: np.ndarray) -> pa.Array:
    """An array of numbers or booleans (n,); numbers that lie in a row are not copied."""
    data = (
        np.packbits(values, bitorder="little") if values.dtype == np.bool_ else np.ascontiguousarray(values)
    )
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(data)])


def texts_of(texts: Sequence[str]) -> pa.StringArray:
    """An array of text."""
    encoded = [text.encode() for text in texts]
    ends = np.fromiter(accumulate(map(len, encoded), initial=0), dtype=np.int32)
    return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded)))
