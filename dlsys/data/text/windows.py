"""Text as characters, cut into windows that continue each other."""

from __future__ import annotations

import numpy as np
import torch

from dlsys.data.dataset import Splits, TensorDataset
from dlsys.errors import DataError
from dlsys.spec.data import Pydoc, TextFile
from dlsys.spec.rows import Shape

# Token 0: any character that the training part does not have.
UNKNOWN = "\N{REPLACEMENT CHARACTER}"


def windows(text: str, options: Pydoc | TextFile, name: str) -> Splits:
    """Rows of `tokens` and `targets`, int64 (window,): train | valid | test by position.

    Row i + 1 starts where row i ended; a tail of fewer than window + 1 characters is dropped.
    """
    window = options.window
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    n_valid = max(round(options.valid * len(points)), window + 1)
    n_test = max(round(options.test * len(points)), window + 1) if options.test else 0
    n_train = len(points) - n_valid - n_test
    if n_train < window + 1:
        raise DataError(
            f"{name}: {len(points)} characters are too few: {n_valid} for validation and {n_test} for "
            f"the test leave {max(n_train, 0)} to train on, and a row needs {window + 1}",
            hint="give more text, or lower data.window, data.valid or data.test",
        )
    known = np.setdiff1d(points[:n_train], [ord(UNKNOWN)])
    place = np.searchsorted(known, points).clip(max=max(len(known) - 1, 0))
    found = known[place] == points if len(known) else np.zeros(len(points), dtype=bool)
    ids = torch.from_numpy(np.where(found, place + 1, 0))

    def part(start: int, length: int) -> TensorDataset:
        rows = (length - 1) // window
        end = start + rows * window
        # Two views of the same numbers: a character is held once.
        return TensorDataset(
            {
                "tokens": ids[start:end].view(rows, window),
                "targets": ids[start + 1 : end + 1].view(rows, window),
            }
        )

    return Splits(
        train=part(0, n_train),
        valid=part(n_train, n_valid),
        test=part(n_train + n_valid, n_test) if n_test else None,
        shape=Shape(
            row={"tokens": (window,), "targets": (window,)},
            vocabulary=(UNKNOWN, *map(chr, known.tolist())),
        ),
    )
