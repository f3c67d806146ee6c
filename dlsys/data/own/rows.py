"""Rows of the kinds that users' functions return, as the engine takes them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, TensorDataset, default_collate

from dlsys.data import dataset as ours
from dlsys.data.own.tables import as_arrow, is_table, values
from dlsys.data.text.padding import padded
from dlsys.errors import DataError
from dlsys.spec.data.own import OwnSource
from dlsys.spec.rows import Shape

# A larger table is left where it is.
_LARGE = 64 * 2**20

_KINDS = (
    "a torch data set of the map style, a Hugging Face Dataset, a mapping or tuple of arrays, a table, or a "
    "mapping with train, valid and test of these"
)


@dataclass(frozen=True)
class Given:
    """Rows that a function gave.

    Attributes:
        rows: as the engine takes them.
        classes: the names of the classes; empty where nobody says them.
        labels: int64 (rows,), where they are known without fetching the rows.
    """

    rows: ours.Dataset
    classes: tuple[str, ...] = ()
    labels: np.ndarray | None = None


def is_column(found: Any) -> bool:
    """Whether it is the values of one field, of all rows."""
    return isinstance(found, np.ndarray | Tensor)


def as_rows(found: Any, options: OwnSource) -> Given:
    """Raises:
    DataError: it is nothing that rows can be taken from.
    """
    name = options.source
    if isinstance(found, TensorDataset):
        found = found.tensors
    if is_table(found):
        table = as_arrow(found)
        if table.nbytes > _LARGE and not options.pad_with:
            return _of_table(table, options)
        found = {column: values(table[column]) for column in table.column_names}
    if isinstance(found, Mapping) and found and not hasattr(found, "with_format"):
        return _of_columns(dict(found), options)
    if isinstance(found, list | tuple) and found and all(map(is_column, found)):
        fields = _named([column[:1] for column in map(_tensor, found)], options, len(found))
        return _of_columns(dict(zip(fields, found, strict=True)), options)
    if isinstance(found, IterableDataset) or (hasattr(found, "__iter__") and not hasattr(found, "__len__")):
        raise DataError(
            f"{name}: returns a stream ({type(found).__name__}), whose rows have no numbers: they could not "
            "be shuffled, shared by workers or gone on with",
            hint="return a data set with __getitem__ and __len__",
        )
    if callable(getattr(found, "batch", None)) and not hasattr(found, "column_names"):
        return Given(found)
    if hasattr(found, "__getitem__") and hasattr(found, "__len__"):
        return _of_items(found, options)
    raise DataError(f"{name}: returns a {type(found).__name__}, and wanted is {_KINDS}")


def _of_columns(columns: dict[str, Any], options: OwnSource) -> Given:
    _refuse_absent(columns, options)
    lists = {name: columns.pop(name) for name in options.pad_with}
    fields = {str(name): _plain(_tensor(column, options, str(name))) for name, column in columns.items()}
    lengths = {name: len(tensor) if tensor.ndim else -1 for name, tensor in fields.items()}
    lengths |= {name: len(column) for name, column in lists.items()}
    if len(set(lengths.values())) > 1 or -1 in lengths.values():
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"{options.source}: its fields are of unequal length: {told}")
    labels = fields.get("label")
    known = (
        labels.numpy() if labels is not None and labels.dtype == torch.int64 and labels.ndim == 1 else None
    )
    rows = _Lists(lists, fields, options) if lists else ours.TensorDataset(fields)
    return Given(rows, labels=known)


def _of_table(table: pa.Table, options: OwnSource) -> Given:
    """Rows of a table that is left where it is, on disk maybe."""
    rows = _Taken(table, options)
    rows.batch(np.zeros(1, dtype=np.int64))  # what is no number is told now
    label = table["label"] if "label" in table.column_names else None
    known = label.to_numpy() if label is not None and pa.types.is_integer(label.type) else None
    return Given(rows, labels=None if known is None else known.astype(np.int64))


def _refuse_absent(fields: Collection[str], options: OwnSource) -> None:
    if gone := [name for name in options.pad_with if name not in fields]:
        told = ", ".join(map(str, fields))
        raise DataError(f"{options.source}: data.pad_with: no field {gone[0]!r}: rows have {told}")


def _of_items(found: Any, options: OwnSource) -> Given:
    """A map-style data set."""
    if not len(found):
        raise DataError(f"{options.source}: returns a data set without rows")
    names: tuple[str, ...] = tuple(map(str, getattr(found, "classes", ())))
    if hasattr(found, "column_names") and hasattr(found, "with_format"):
        features = getattr(found, "features", None) or {}
        label = features.get("label")
        _refuse_absent(found.column_names, options)
        return Given(_Formatted(found, options), classes=tuple(getattr(label, "names", ())))
    sample = found[0]
    if isinstance(sample, Mapping):
        fields: tuple[str, ...] = ()
    else:
        parts = list(sample) if isinstance(sample, list | tuple) else [sample]
        fields = _named([default_collate([part]) for part in parts], options, len(parts))
    _refuse_absent(fields or tuple(map(str, sample)), options)
    labels = _labels(found, fields or tuple(map(str, sample)))
    return Given(_Items(found, fields, options), names, labels)


def _labels(found: Any, fields: Sequence[str]) -> np.ndarray | None:
    """The labels of all rows, where a data set keeps them as torchvision's do."""
    targets = getattr(found, "targets", None)
    if "label" not in fields or targets is None or len(targets) != len(found):
        return None
    labels = np.asarray(targets)
    return labels.astype(np.int64) if labels.ndim == 1 and labels.dtype.kind in "iu" else None


class _Lists:
    """Rows held in memory, some of whose fields are lists of unequal length."""

    def __init__(self, lists: Mapping[str, Any], fields: dict[str, Tensor], options: OwnSource) -> None:
        self._lists, self._fields, self._options = lists, fields, options

    def __len__(self) -> int:
        return len(next(iter(self._lists.values())))

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        lists = {name: [column[row] for row in rows.tolist()] for name, column in self._lists.items()}
        others = {name: tensor[torch.from_numpy(rows)] for name, tensor in self._fields.items()}
        return _with_lists(lists, others, self._options)


def _with_lists(
    lists: Mapping[str, Sequence[Any]], others: dict[str, Tensor], options: OwnSource
) -> dict[str, Tensor]:
    """A batch of padded lists and of other fields, whose own mask comes first."""
    return {**padded(lists, options.pad_with, options.source), **others}


class _Taken:
    """Rows of an Arrow table, taken from it for each batch."""

    def __init__(self, table: pa.Table, options: OwnSource) -> None:
        self._table, self._options = table, options

    def __len__(self) -> int:
        return len(self._table)

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        taken = self._table.take(pa.array(rows))
        return {
            name: _plain(_tensor(values(taken[name]), self._options, name)) for name in taken.column_names
        }


class _Items:
    """A data set whose rows are fetched one by one, or many at once where it can."""

    def __init__(self, found: Any, fields: tuple[str, ...], options: OwnSource) -> None:
        self._found, self._fields, self._name = found, fields, options.source
        self._options = options

    def __len__(self) -> int:
        return len(self._found)

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        index = rows.tolist()
        many = getattr(self._found, "__getitems__", None)
        items = many(index) if many is not None else [self._found[row] for row in index]
        lists: dict[str, list[Any]] = {}
        if self._options.pad_with:
            named = [
                dict(zip(self._fields, item, strict=True)) if self._fields else dict(item) for item in items
            ]
            lists = {name: [item.pop(name) for item in named] for name in self._options.pad_with}
        try:
            if lists:
                batch = dict(default_collate(named)) if named[0] else {}
            elif not self._fields:
                batch = dict(default_collate(items))
            elif isinstance(items[0], list | tuple):
                columns = zip(*items, strict=True)
                batch = dict(zip(self._fields, map(default_collate, map(list, columns)), strict=True))
            else:
                batch = {self._fields[0]: default_collate(items)}
        except (RuntimeError, TypeError, ValueError, KeyError) as error:
            raise DataError(
                f"{self._name}: rows {index[0]}, {index[-1]} and those between them in a batch do not fit "
                f"together: {str(error).splitlines()[0]}",
                hint="every row needs the same fields, of the same shape",
            ) from error
        plain = {name: _plain(_tensor(value)) for name, value in batch.items()}
        return _with_lists(lists, plain, self._options) if lists else plain


class _Formatted:
    """A Hugging Face `Dataset`."""

    def __init__(self, found: Any, options: OwnSource) -> None:
        self._found, self._options = found.with_format("torch"), options

    def __len__(self) -> int:
        return len(self._found)

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        found = dict(self._found[rows.tolist()])
        lists = {name: found.pop(name) for name in self._options.pad_with}
        plain = {name: _plain(_tensor(value)) for name, value in found.items()}
        return _with_lists(lists, plain, self._options) if lists else plain


def _tensor(value: Any, options: OwnSource | None = None, field: str = "") -> Tensor:
    try:
        if isinstance(value, Tensor):
            return value.detach()
        array = np.asarray(value)
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    except (TypeError, ValueError) as error:
        place = options.source if options else "data.source"
        raise DataError(
            f"{place}: the field {field!r} holds {type(value).__name__}, which is no numbers: {error}",
            hint="return numbers; of a table, data.target makes features of text columns too",
        ) from error


def _plain(value: Tensor) -> Tensor:
    """Of the types that models and losses take: float32, int64; bytes of images as 0…1."""
    if value.dtype == torch.uint8 and value.ndim >= 3:
        return value.float() / 255
    if value.is_floating_point():
        return value.float()
    return value if value.is_complex() else value.long()


def _named(parts: Sequence[Any], options: OwnSource, count: int) -> tuple[str, ...]:
    """Names for what a row holds that is a tuple: the job's, or what their shapes say."""
    if options.fields:
        if len(options.fields) != count:
            raise DataError(
                f"{options.source}: data.fields names {len(options.fields)}, and a row has {count} parts"
            )
        return options.fields
    if not 1 <= count <= 2 or not all(isinstance(part, Tensor) for part in parts):
        raise DataError(
            f"{options.source}: a row has {count} parts: name them, data.fields: [image, label] for example"
        )
    inputs = parts[0]
    first = {4: "image", 3: "image", 2: "features"}.get(inputs.ndim, "input")
    if not inputs.is_floating_point() and inputs.ndim == 2:
        first = "tokens"
    if count == 1:
        return (first,)
    told = parts[1]
    return first, "label" if told.ndim == 1 and not told.is_floating_point() else "target"


def first_row(rows: ours.Dataset) -> dict[str, Tensor]:
    return rows.batch(np.zeros(1, dtype=np.int64))


def shape_of(parts: Mapping[str, Given], options: OwnSource) -> Shape:
    """What a model needs to know of the rows.

    Raises:
        DataError: parts differ; a field has a name of dlsys's; nobody says how many classes there are.
    """
    train = parts["train"]
    rows = {part: first_row(given.rows) for part, given in parts.items()}
    shapes = {part: {name: tuple(t.shape[1:]) for name, t in row.items()} for part, row in rows.items()}
    for part, shape in shapes.items():
        if shape.keys() != shapes["train"].keys():
            raise DataError(
                f"{options.source}: rows of {part} have {', '.join(shape)}, those of train "
                f"{', '.join(shapes['train'])}"
            )
    if "key" in shapes["train"]:
        raise DataError(f"{options.source}: a field is called 'key', which dlsys adds itself: rename it")
    label = rows["train"].get("label")
    classes = 0
    if label is not None and not label.is_floating_point():
        known = [given.labels for given in parts.values() if given.labels is not None and len(given.labels)]
        classes = options.classes or len(train.classes) or (1 + int(max(map(np.max, known))) if known else 0)
        lowest = min((int(np.min(labels)) for labels in known), default=0)
        if lowest < 0:
            raise DataError(f"{options.source}: a label is {lowest}: classes are numbered from 0")
        if not classes:
            raise DataError(
                f"{options.source}: how many classes label has cannot be seen without fetching every row: "
                "say data.classes"
            )
    return Shape(row=shapes["train"], classes=classes)
