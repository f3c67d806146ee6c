"""What a column of a table is taken for: one rule, for training and for `dlsys data show`.

A cell is missing when it is empty or one of the words of `MISSING`. A column is of numbers when every other
cell is a finite number as a point and an exponent write it; else it is of categories. What is neither
plainly the one nor the other (a few odd cells among numbers, decimal commas, a different text in every
row) is refused until the job says which it is: `columns: {NAME: number}`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from dlsys.data.files import listed
from dlsys.errors import DataError

Kind = Literal["number", "category"]

# As pandas and R read them, and what forms and databases write.
_WORDS = "na n/a #n/a #na <na> nan +nan -nan nat null none nil ? - ."
MISSING = frozenset(["", *_WORDS.split()])
# More columns than this from one column is an identifier, which one-hot codes can't carry.
_MOST_CATEGORIES = 1000
# So many odd cells among numbers are mistakes, and no column of categories.
_FEW = 0.1
# A target with more different numbers than this may be a quantity.
_MANY_CLASSES = 20
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_GROUPS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")
_COMMA = re.compile(r"[+-]?\d+,\d+")


def is_missing(cell: str) -> bool:
    return cell.lower() in MISSING


@dataclass(frozen=True)
class Column:
    """One column's cells.

    Attributes:
        name: as the header has it.
        cells: without blanks around.
        at: names the place of a row, for messages.
        decimal, thousands: how numbers are written.
    """

    name: str
    cells: Sequence[str]
    at: Callable[[int], str]
    decimal: str = "."
    thousands: str | None = None

    @cached_property
    def present(self) -> list[int]:
        """Rows whose cell is not missing."""
        return [row for row, cell in enumerate(self.cells) if not is_missing(cell)]

    @cached_property
    def numbers(self) -> np.ndarray:
        """float64 (rows,): NaN where a cell is missing or no finite number."""
        return np.array([self._number(cell) for cell in self.cells], dtype=np.float64)

    def _number(self, cell: str) -> float:
        if self.thousands and self.thousands in cell:
            cell = cell.replace(self.thousands, "")
        if self.decimal != ".":
            cell = cell.replace(".", "x").replace(self.decimal, ".")
        if not _NUMBER.fullmatch(cell):
            return math.nan
        number = float(cell)
        return number if math.isfinite(number) else math.nan

    @cached_property
    def odd(self) -> list[int]:
        """Rows whose cell is there, and no number."""
        return [row for row in self.present if math.isnan(self.numbers[row])]

    @cached_property
    def values(self) -> list[str]:
        """The different cells that are there, in the order of numbers where all are, else of text; of
        equal numbers the first one's."""
        if self.odd:
            return sorted({self.cells[row] for row in self.present})
        names: dict[float, str] = {}
        for row in self.present:
            names.setdefault(float(self.numbers[row]), self.cells[row])
        return [names[number] for number in sorted(names)]

    @property
    def counts_rows(self) -> bool:
        """Whether it is 0, 1, 2 … or 1, 2, 3 …: pandas' index, or another running number."""
        rows = len(self.cells)
        if rows < 3 or len(self.present) < rows or self.odd:
            return False
        return bool((np.diff(self.numbers) == 1).all() and self.numbers[0] in (0, 1))

    def kind(self, said: Kind | None = None) -> Kind:
        """What it is taken for.

        Args:
            said: what the job says it is.

        Raises:
            DataError: it is not what the job says, or could be either.
        """
        if not self.odd:
            return said or "number"
        if said == "number":
            raise DataError(self._odd_cells())
        if said is None:
            self._refuse_doubt()
        if len(self.values) > _MOST_CATEGORIES:
            raise DataError(
                f"{self.at(0)}: column {self.name!r} has {len(self.values)} categories; at most "
                f"{_MOST_CATEGORIES} can become features: leave it out, columns: {{{self.name}: skip}}"
            )
        return "category"

    def _refuse_doubt(self, mend: str = "") -> None:
        """Args:
        mend: what to do with a column that says nothing; by default to skip it.
        """
        texts = [self.cells[row] for row in self.odd]
        grouped, comma = (all(map(form.fullmatch, texts)) for form in (_GROUPS, _COMMA))
        first = f"{self.at(self.odd[0])}: column {self.name!r}"
        if grouped or comma:
            decimal = "decimal: ',' if commas are decimal points"
            options = f"{decimal}, thousands: ',' if they group digits" if grouped and comma else decimal
            options = options if comma else "thousands: ',', for commas group their digits"
            raise DataError(
                f"{first} looks like numbers with commas, such as {texts[0]!r}: say data.{options}; or "
                f"columns: {{{self.name}: category}}"
            )
        if len(self.odd) <= _FEW * len(self.present):
            raise DataError(
                f"{first}: {len(self.odd)} of {len(self.present)} cells are no numbers, such as "
                f"{texts[0]!r}, and the others are: mend them, or say columns: {{{self.name}: category}}"
            )
        if len(self.values) == len(self.present) > _MANY_CLASSES:
            raise DataError(
                f"{first} has another text in each row, such as {texts[0]!r}, from which nothing can be "
                f"learnt: {mend or f'say columns: {{{self.name}: skip}}'}, or say columns: "
                f"{{{self.name}: category}}"
            )

    def _odd_cells(self) -> str:
        return listed(
            [
                f"{self.at(row)}: column {self.name!r}: {self.cells[row]!r} is not a finite number"
                for row in self.odd
            ],
            "\n",
        )

    def classes(self, said: Kind | None = None) -> tuple[list[str], np.ndarray]:
        """The classes of a target, and each row's, int64 (rows,).

        Raises:
            DataError: they are too many different numbers to be classes, or could be numbers.
        """
        names = self.values
        if self.odd:
            if said is None and len(names) > _MANY_CLASSES:  # fewer are names, whatever they look like
                self._refuse_doubt(mend="name another target")
            number = {name: index for index, name in enumerate(names)}
            return names, np.array([number[cell] for cell in self.cells], dtype=np.int64)
        known = np.unique(self.numbers)
        whole = bool((known == np.round(known)).all())
        many = len(known) > _MANY_CLASSES and (not whole or len(known) > len(self.cells) / 10)
        if many and said is None:
            raise DataError(
                f"{self.at(0)}: the target {self.name!r} has {len(known)} different numbers in "
                f"{len(self.cells)} rows, which reads as a quantity: say data.task: regression, or "
                f"columns: {{{self.name}: category}}"
            )
        return names, np.searchsorted(known, self.numbers).astype(np.int64)


def describe(column: Column, said: Kind | None = None) -> Mapping[str, str]:
    """A line of `dlsys data show`."""
    try:
        kind: str = column.kind(said) if column.present else "empty"
        why = ""
    except DataError as error:
        kind, why = "doubtful", str(error).splitlines()[0]
    if column.counts_rows:
        why = "counts the rows"
    values = column.values
    if kind == "number" and column.present:
        low, high = np.nanmin(column.numbers), np.nanmax(column.numbers)
        examples = f"{low:g} … {high:g}"
    else:
        examples = ", ".join(values[:3]) + (" …" if len(values) > 3 else "")
    missing = len(column.cells) - len(column.present)
    return {
        "column": column.name,
        "kind": kind,
        "values": str(len(values)),
        "missing": str(missing),
        "examples": examples[:40],
        "note": why,
    }
