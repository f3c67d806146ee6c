"""What a column of a table is taken for: one rule, for training and for `dlsys data show`.

A cell of text is missing when it is empty or one of the words of `MISSING`. A column is of numbers when every
other cell is a finite number as a point and an exponent write it; else it is of categories. What is neither
plainly the one nor the other (a few odd cells among numbers, decimal commas, a different text in every
row) is refused until the job says which it is: `columns: {NAME: number}`.

Columns that have a type (of Parquet and Arrow files) are what their type says: numbers and dates are numbers,
booleans and text are categories; `columns:` has the last word there too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dlsys.data.features.arrays import arrow_of, numpy_of, texts_of
from dlsys.data.files import SHOWN, listed
from dlsys.errors import DataError

Kind = Literal["number", "category", "date"]

# As pandas and R read them, and what forms and databases write.
_WORDS = "na n/a #n/a #na <na> nan +nan -nan nat null none nil ? - ."
MISSING = frozenset(["", *_WORDS.split()])
# More columns than this from one column is an identifier, which one-hot codes can't carry.
_MOST_CATEGORIES = 1000
# So many odd cells among numbers are mistakes, and no column of categories.
_FEW = 0.1
# A target with more different numbers than this may be a quantity.
_MANY_CLASSES = 20
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_GROUPS = r"^[+-]?\d{1,3}(,\d{3})+(\.\d+)?$"
_COMMA = r"^[+-]?\d+,\d+$"
_DATE = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?Z?)?$"
_DAY = 86_400_000_000


@dataclass(frozen=True)
class Column:
    """One column's cells.

    Attributes:
        name: as the header has it.
        given: its cells: text, or of a type of their own.
        at: names the place of a row, for messages.
        decimal, thousands: how numbers are written in text.
        typed: whether the file says the column's type, so that text is meant as text.
        said: what the job says it is; None where the rule decides.
        loose: whether it is text as it was read into memory, maybe with blanks around.
    """

    name: str
    given: pa.ChunkedArray
    at: Callable[[int], str]
    decimal: str = "."
    thousands: str | None = None
    typed: bool = False
    said: Kind | None = None
    loose: bool = False

    def __len__(self) -> int:
        return len(self.given)

    def text(self, row: int) -> str:
        """A cell as messages show it."""
        return str(self.cells[row].as_py())

    @cached_property
    def cells(self) -> pa.ChunkedArray:
        """Text without blanks around, or of a type of its own."""
        return pc.utf8_trim_whitespace(self.given) if self.loose else self.given

    def parsed(self) -> Column:
        """The same with numbers for text, where every cell is a finite number as it stands.

        Most columns are so, and Arrow does it in one go; numbers take less room, and what follows less time.
        Of a column that is to be named (a target, a category), the text is wanted.
        """
        if not self.loose or self.decimal != "." or self.thousands or self.said not in (None, "number"):
            return self  # text that lies on disk takes no room
        try:
            numbers = pc.cast(self.given, pa.float64())
        except pa.ArrowInvalid:
            return self
        sound = numbers.null_count == 0 and pc.all(pc.is_finite(numbers)).as_py()
        return replace(self, given=numbers, loose=False) if sound else self

    @cached_property
    def missing(self) -> np.ndarray:
        """bool (rows,)."""
        if not _is_text(self.cells.type):
            gone = pc.is_null(self.cells, nan_is_null=True)
        else:
            words = pc.cast(texts_of(sorted(MISSING)), self.cells.type)
            gone = pc.or_(pc.is_null(self.cells), pc.is_in(pc.ascii_lower(self.cells), words))
        return numpy_of(gone)

    def numbers(self) -> np.ndarray:
        """float64 (rows,): NaN where a cell is missing or no finite number; of a date, days since 1970.

        Made anew at each call: a large table's are not to be held for all columns.
        """
        kind = self.cells.type
        if self.said == "date" or pa.types.is_temporal(kind):
            return self._days()
        if not _is_text(kind):
            numbers = numpy_of(pc.cast(self.cells, pa.float64(), safe=False))
        else:
            numbers = self._parsed()
        finite = np.isfinite(numbers)
        return numbers if finite.all() else np.where(finite, numbers, np.nan)

    def _parsed(self) -> np.ndarray:
        text = self.cells
        if self.thousands:
            text = pc.replace_substring(text, self.thousands, "")
        if self.decimal != ".":
            text = pc.replace_substring(pc.replace_substring(text, ".", "x"), self.decimal, ".")
        try:
            # What Arrow reads as a number is finite and ours, or an infinity, a NaN and not.
            return numpy_of(pc.cast(text, pa.float64()))
        except pa.ArrowInvalid:
            plain = pc.match_substring_regex(text, _NUMBER)
            return numpy_of(pc.cast(pc.if_else(plain, text, pa.NULL), pa.float64()))

    def _days(self) -> np.ndarray:
        moments = self.cells
        if _is_text(moments.type):
            plain = pc.match_substring_regex(moments, _DATE)
            moments = pc.if_else(plain, pc.replace_substring(moments, "Z", ""), pa.NULL)
        try:
            moments = pc.cast(moments, pa.timestamp("us"), safe=False)
        except pa.ArrowInvalid as error:
            raise DataError(
                f"{self.at(0)}: column {self.name!r} has a date that no calendar has: {error}"
            ) from error
        return numpy_of(pc.cast(pc.cast(moments, pa.int64()), pa.float64())) / _DAY

    @cached_property
    def odd(self) -> np.ndarray:
        """Rows whose cell is there, and no number: int64, rising."""
        return np.flatnonzero(np.isnan(self.numbers()) & ~self.missing)

    @property
    def present(self) -> int:
        """How many cells are there."""
        return len(self) - int(self.missing.sum())

    @cached_property
    def coded(self) -> tuple[list[str], np.ndarray]:
        """The different cells that are there, in the order of text; and each row's, int32 (rows,), −1 where
        it is missing."""
        cells = self.cells if _is_text(self.cells.type) else _as_text(self.cells)
        dictionary = pc.dictionary_encode(cells).unify_dictionaries()
        parts = dictionary.chunks
        names = parts[0].dictionary.to_pylist() if parts else []
        codes = np.full(len(self), -1, dtype=np.int32)
        if parts:
            codes[:] = np.concatenate([numpy_of(part.indices, -1) for part in parts])
        codes[self.missing] = -1
        known = np.unique(codes[codes >= 0])
        ordered = sorted(known.tolist(), key=lambda code: str(names[code]))
        place = np.full(len(names) + 1, -1, dtype=np.int32)  # the last one is what −1 finds
        place[ordered] = np.arange(len(ordered))
        return [str(names[code]) for code in ordered], place[codes]

    @cached_property
    def values(self) -> list[str]:
        """The different cells that are there, in the order of numbers where all are, else of text; of
        equal numbers the first one's."""
        if len(self.odd) or self.is_named:
            return self.coded[0]
        rows = np.flatnonzero(~self.missing)
        _, first = np.unique(self.numbers()[rows], return_index=True)
        return [str(cell) for cell in self.cells.take(arrow_of(rows[first])).to_pylist()]

    @property
    def is_named(self) -> bool:
        """Whether its type says that its values are names."""
        return self.typed and (_is_text(self.cells.type) or pa.types.is_boolean(self.cells.type))

    @property
    def counts_rows(self) -> bool:
        """Whether it is 0, 1, 2 … or 1, 2, 3 …: pandas' index, or another running number."""
        if len(self) < 3 or self.missing.any() or len(self.odd):
            return False
        numbers = self.numbers()
        return bool(numbers[0] in (0, 1) and (np.diff(numbers) == 1).all())

    def kind(self) -> Kind:
        """What it is taken for.

        Raises:
            DataError: it is not what the job says, or could be either.
        """
        if self.said in ("number", "date"):
            if len(self.odd):
                raise DataError(self.odd_cells())
            return self.said
        if self.said is None and not self.is_named:
            if not len(self.odd):
                return "date" if pa.types.is_temporal(self.cells.type) else "number"
            self._refuse_doubt()
        if len(self.coded[0]) > _MOST_CATEGORIES:
            raise DataError(
                f"{self.at(0)}: column {self.name!r} has {len(self.coded[0])} categories; at most "
                f"{_MOST_CATEGORIES} can become features: leave it out, columns: {{{self.name}: skip}}"
            )
        return "category"

    def _refuse_doubt(self, mend: str = "") -> None:
        """Args:
        mend: what to do with a column that says nothing; by default to skip it.
        """
        odd = self.cells.take(arrow_of(self.odd)).unique()
        example = self.text(int(self.odd[0]))
        first = f"{self.at(int(self.odd[0]))}: column {self.name!r}"
        is_text = _is_text(odd.type)
        grouped, comma, dates = (is_text and _all_match(odd, form) for form in (_GROUPS, _COMMA, _DATE))
        if grouped or comma:
            decimal = "decimal: ',' if commas are decimal points"
            options = f"{decimal}, thousands: ',' if they group digits" if grouped and comma else decimal
            options = options if comma else "thousands: ',', for commas group their digits"
            raise DataError(
                f"{first} looks like numbers with commas, such as {example!r}: say data.{options}; or "
                f"columns: {{{self.name}: category}}"
            )
        if dates and len(self.odd) == self.present and len(self.coded[0]) > _MANY_CLASSES:
            mend = mend or f"say columns: {{{self.name}: date}}, which counts days"
            raise DataError(
                f"{first} looks like dates, such as {example!r}: {mend}; or "
                f"columns: {{{self.name}: category}}"
            )
        if len(self.odd) <= _FEW * self.present:
            raise DataError(
                f"{first}: {len(self.odd)} of {self.present} cells are no numbers, such as "
                f"{example!r}, and the others are: mend them, or say columns: {{{self.name}: category}}"
            )
        if len(self.coded[0]) == self.present > _MANY_CLASSES:
            raise DataError(
                f"{first} has another text in each row, such as {example!r}, from which nothing can be "
                f"learnt: {mend or f'say columns: {{{self.name}: skip}}'}, or say columns: "
                f"{{{self.name}: category}}"
            )

    def odd_cells(self) -> str:
        """Where the odd cells are, a line each."""
        what = "a date such as 2026-01-31" if self.said == "date" else "a finite number"
        return listed(
            [
                f"{self.at(row)}: column {self.name!r}: {self.text(row)!r} is not {what}"
                for row in self.odd[:SHOWN].tolist()
            ],
            "\n",
            of=len(self.odd),
        )

    def classes(self) -> tuple[list[str], np.ndarray]:
        """The classes of a target, and each row's, int64 (rows,).

        Raises:
            DataError: they are too many different numbers to be classes, or could be numbers.
        """
        if len(self.odd) or self.is_named:
            names, codes = self.coded
            if self.said is None and not self.is_named and len(names) > _MANY_CLASSES:
                self._refuse_doubt(mend="name another target")  # fewer are names, whatever they look like
            return names, codes.astype(np.int64)
        known, labels = np.unique(self.numbers(), return_inverse=True)
        whole = bool((known == np.round(known)).all())
        many = len(known) > _MANY_CLASSES and (not whole or len(known) > len(self) / 10)
        if many and self.said is None:
            raise DataError(
                f"{self.at(0)}: the target {self.name!r} has {len(known)} different numbers in "
                f"{len(self)} rows, which reads as a quantity: say data.task: regression, or "
                f"columns: {{{self.name}: category}}"
            )
        return self.values, labels.astype(np.int64)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _as_text(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.cast(cells, pa.string())


def _all_match(cells: pa.ChunkedArray, form: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(cells, form)).as_py())


def describe(column: Column) -> Mapping[str, str]:
    """A line of `dlsys data show`."""
    try:
        kind: str = column.kind() if column.present else "empty"
        why = ""
    except DataError as error:
        kind, why = "doubtful", str(error).splitlines()[0]
    if column.counts_rows:
        why = "counts the rows"
    values = column.values
    if kind == "number" and column.present:
        numbers = column.numbers()
        low, high = np.nanmin(numbers), np.nanmax(numbers)
        examples = f"{low:g} … {high:g}"
    else:
        examples = ", ".join(values[:3]) + (" …" if len(values) > 3 else "")
    return {
        "column": column.name,
        "kind": kind,
        "values": str(len(values)),
        "missing": str(len(column) - column.present),
        "examples": examples[:40],
        "note": why,
    }
