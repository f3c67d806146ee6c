"""Masks as COCO writes them down: polygons, run lengths, and run lengths in a string."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlsys.errors import DataError, UsageError


def decoded(outline: Any, size: tuple[int, int], where: str) -> np.ndarray:
    """The pixels of an object: bool (height, width).

    pycocotools fills polygons by a rule of its own, on a grid five times as fine: only it gives COCO's masks.

    Args:
        outline: a list of polygons [x1, y1, x2, y2, …], or `{counts, size}` of run lengths down the columns.
        size: the image's width and height.
        where: what messages call it.

    Raises:
        DataError: it is none of these.
        UsageError: pycocotools is not installed.
    """
    try:
        from pycocotools import mask as library
    except ImportError as error:
        raise UsageError(
            "data.wanted: masks of COCO's annotations are read with pycocotools, which is not installed",
            hint="pip install 'dlsys[vision]'",
        ) from error
    width, height = size
    try:
        if isinstance(outline, list):
            found = library.merge(library.frPyObjects(outline, height, width))
        elif isinstance(outline["counts"], list):
            found = library.frPyObjects(outline, height, width)
        else:
            found = outline
        mask = np.asarray(library.decode(found), dtype=bool)
    except Exception as error:  # of any kind, from Cython
        raise DataError(f"{where}: is neither polygons nor run lengths: {error}") from error
    if mask.shape != (height, width):
        own = f"{mask.shape[1]} × {mask.shape[0]}"
        raise DataError(f"{where}: a mask of {own} pixels, and its image has {width} × {height}")
    return mask
