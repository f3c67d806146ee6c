"""Texts with classes, as tokens of one length."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlsys.data.dataset import Splits
from dlsys.data.features.cells import Cells, joined
from dlsys.data.features.csv_text import read_csv
from dlsys.data.features.parts import deciding, parts_of, untrained
from dlsys.data.features.typed_files import READERS
from dlsys.data.files import reading
from dlsys.data.text.padding import rounded
from dlsys.errors import DataError
from dlsys.spec.data import LabelledTexts
from dlsys.spec.rows import Shape

PAD, UNKNOWN = "[PAD]", "[UNK]"
_WORDS = re.compile(r"\w+|[^\w\s]")
# What pads in tokenizers that are around.
_PADS = (PAD, "<pad>", "<|endoftext|>", "</s>")


def labelled_texts(options: LabelledTexts, folder: Path) -> Splits:
    """Rows of `input_ids` and `attention_mask`, int64 (length,), and `label`, int64.

    Words are numbered by how often the training rows have them, the most frequent one first, equal ones in
    the order of text; 0 pads, and 1 is any other word. Rows are as long as the longest training row, and at
    most `length`; with `pad: longest`, as long as the longest of their batch.

    Raises:
        DataError: names file and line, or the column.
    """
    paths = {"train": options.path, **(options.split_by.files if options.split_by else {})}
    read = {part: _cells(path, folder, options.delimiter) for part, path in paths.items()}
    cells = joined(read) if len(read) > 1 else read["train"]
    texts, (classes, labels) = _texts(cells, options.text), cells.column(options.target).classes()
    if len(classes) < 2:
        raise DataError(f"{options.path}: the target {options.target!r} has only one class: {classes[0]!r}")
    decides = deciding(cells, options)
    parts, notes = parts_of(options, decides, rows=len(texts), name=options.path, labels=labels)
    if decides is not None:
        notes = (*notes, *untrained(options.path, classes, labels, parts))
    learnt: dict[str, Any] = {"name": options.text}
    if options.tokenizer:
        vocabulary, rows, pad, learnt["tokenizer"] = _by_file(options.tokenizer, folder, texts)
    else:
        split = [_WORDS.findall(text.lower()) for text in texts]
        vocabulary = _vocabulary((split[row] for row in parts.train), options.vocabulary)
        number = {word: index for index, word in enumerate(vocabulary)}
        rows, pad = [[number.get(word, 1) for word in words] for words in split], 0
        learnt["vocabulary"] = list(vocabulary)
    longest = max(len(rows[row]) for row in parts.train)
    length = max(1, min(options.length, longest))
    cut = sum(len(row) > length for row in rows)
    learnt |= {"length": length, "padding": pad}
    counts = np.bincount(labels[parts.train], minlength=len(classes)).tolist()
    ids = _padded(rows, length, pad)
    lengths = np.array([min(len(row), length) for row in rows])
    whole = options.pad == "length"
    train, valid, test = (_Rows(ids[part], lengths[part], labels[part], whole) for part in parts)
    told = f"; {cut:,} rows are cut to {length} tokens" if cut else ""
    return Splits(
        train,
        valid,
        test if len(test) else None,
        Shape(
            row={"input_ids": (length,), "attention_mask": (length,), "label": ()},
            classes=len(classes),
            vocabulary=vocabulary,
        ),
        (
            f"{options.path}: {len(texts):,} texts, {len(vocabulary):,} tokens, {len(classes)} classes{told}",
            *notes,
        ),
        {"text": learnt, "target": {"name": options.target, "classes": classes, "counts": counts}},
    )


def _cells(path: str, folder: Path, delimiter: str) -> Cells:
    read = READERS.get(Path(path).suffix)
    return read(path, folder) if read else read_csv(path, folder, delimiter)


class _Rows:
    """Args:
    whole: whether every batch is as long as `ids`; else it is as long as its longest row needs.
    """

    def __init__(self, ids: np.ndarray, lengths: np.ndarray, labels: np.ndarray, whole: bool) -> None:
        self._ids, self._lengths, self._labels, self._whole = ids, lengths, labels, whole

    def __len__(self) -> int:
        return len(self._labels)

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        width = self._ids.shape[1]
        if not self._whole:
            width = min(width, rounded(int(self._lengths[rows].max())))
        mask = np.arange(width) < self._lengths[rows, None]
        return {
            "input_ids": torch.from_numpy(self._ids[rows, :width].astype(np.int64)),
            "attention_mask": torch.from_numpy(mask.astype(np.int64)),
            "label": torch.from_numpy(self._labels[rows]),
        }


def _texts(cells: Cells, name: str) -> list[str]:
    column = cells.column(name)
    if not len(column):
        raise DataError(f"{cells.path}: no rows under the header")
    found: list[str] = column.cells.to_pylist()
    for row, text in enumerate(found):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{column.at(row)}: column {name!r} has no text: fill it, or leave the row out")
    return found


def _vocabulary(rows: Iterable[Sequence[str]], most: int) -> tuple[str, ...]:
    counts = Counter(word for row in rows for word in row)
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    return (PAD, UNKNOWN, *ordered[: most - 2])


def _by_file(path: str, folder: Path, texts: list[str]) -> tuple[tuple[str, ...], list[list[int]], int, str]:
    """Its tokens, each text's, what pads, and the tokenizer itself as JSON."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise DataError(
            f"{path}: a tokenizer needs the package tokenizers", hint="pip install 'dlsys[language]'"
        ) from error
    with reading(path, folder) as full:
        if not full.is_file():
            raise FileNotFoundError
        try:
            tokenizer = Tokenizer.from_file(str(full))
        except Exception as error:  # tokenizers raises Exception itself
            raise DataError(f"{path}: is no tokenizer.json: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    known = tokenizer.get_vocab()
    vocabulary = [f"[{number}]" for number in range(max(known.values()) + 1)]
    for token, number in known.items():
        vocabulary[number] = token
    pad = next((known[name] for name in _PADS if name in known), 0)
    rows = [found.ids for found in tokenizer.encode_batch(texts)]
    return tuple(vocabulary), rows, pad, tokenizer.to_str()


def _padded(rows: Sequence[Sequence[int]], length: int, pad: int) -> np.ndarray:
    ids = np.full((len(rows), length), pad, dtype=np.int32)
    for place, row in enumerate(rows):
        ids[place, : min(len(row), length)] = row[:length]
    return ids
