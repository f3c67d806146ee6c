"""Reading CSV files: Arrow reads them, and Python's own reader says where what Arrow refuses is wrong.

Arrow is many times as fast, and knows no lines; so lines are counted when a message needs one. It also
takes quotes that stand in the middle of a cell, so that a file with quotes goes through Python's reader once.
"""

from __future__ import annotations

import csv
import mmap
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from dlsys.data.features.arrays import texts_of
from dlsys.data.features.cells import Cells
from dlsys.data.files import SHOWN, listed, reading
from dlsys.errors import DataError

# Larger than rows are (Python's reader, which takes those that are not, has cells of at most 128 KiB), and
# small, for each core holds several.
_BLOCK = 2**20
_OTHERS = {
    b"PAR1": "is a Parquet file: say source: parquet",
    b"ARROW1": "is an Arrow file: say source: arrow",
    b"PK\x03\x04": "is a zip archive (as .xlsx files are): save the table as CSV",
    b"\x1f\x8b": "is compressed by gzip: unpack it",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd: unpack it",
}


def read_csv(
    path: str,
    folder: Path,
    delimiter: str = ",",
    spill: Path | None = None,
    *,
    decimal: str = ".",
    thousands: str | None = None,
) -> Cells:
    """A CSV file with a header.

    Args:
        path: the file, as messages name it.
        folder: where a relative path starts.
        delimiter: between two cells.
        decimal, thousands: how numbers are written.
        spill: a file to keep the text in, so that a large table is not held in memory; None holds it.

    Raises:
        DataError: the file cannot be read, or is no table; names the lines.
    """
    with reading(path, folder) as full:
        text = _Text(path, full, delimiter)
        header = text.header
        try:
            columns = _columns(text, len(header), spill)
        except (pa.ArrowInvalid, ValueError):
            # Arrow names neither file nor line; and it refuses what is sound: a header without an end of
            # line, a delimiter of several bytes.
            columns = _slowly(text, len(header))
    return Cells(
        path, header, columns, f"{path}:{text.first}", text.at, False, decimal, thousands, spill is None
    )


def _columns(text: _Text, width: int, spill: Path | None) -> list[pa.ChunkedArray]:
    if text.quoted:
        text.check(width)
    names = [f"f{place}" for place in range(width)]  # as Arrow makes them up
    options = {
        "read_options": pa.csv.ReadOptions(autogenerate_column_names=True, block_size=_BLOCK),
        "parse_options": pa.csv.ParseOptions(delimiter=text.delimiter, newlines_in_values=text.quoted),
        "convert_options": pa.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
        ),
    }
    if spill is None:
        table = pa.csv.read_csv(text.full, **options)
        columns = table.columns
    else:
        with (
            pa.csv.open_csv(text.full, **options) as batches,
            pa.OSFile(str(spill), "wb") as file,
            pa.ipc.new_file(file, batches.schema) as writer,
        ):
            for batch in batches:
                writer.write_batch(pa.record_batch(list(map(_trimmed, batch.columns)), schema=batch.schema))
        columns = pa.ipc.open_file(pa.memory_map(str(spill))).read_all().columns
    return [column.slice(1) for column in columns]  # the header is a row to Arrow


def _trimmed(cells: pa.Array) -> pa.Array:
    """Without blanks around; what is held in memory is trimmed where it matters."""
    return pc.utf8_trim_whitespace(cells)


def _slowly(text: _Text, width: int) -> list[pa.ChunkedArray]:
    text.check(width)
    rows = [cells for _, cells in text.records()][1:]
    columns = [texts_of([row[place] for row in rows]) for place in range(width)]
    return [pa.chunked_array([_trimmed(column)]) for column in columns]


class _Text:
    """A file's text, as Python reads it."""

    def __init__(self, path: str, full: Path, delimiter: str) -> None:
        self.path, self.full, self.delimiter = path, full, delimiter
        self._lines, self._rest = array("q"), self.records()
        with open(full, "rb") as file:
            start = file.read(8)
        for magic, what in _OTHERS.items():
            if start.startswith(magic):
                raise DataError(f"{path}: {what}")

    def records(self, seen: list[str] | None = None) -> Iterator[tuple[int, list[str]]]:
        """Each record that is not a blank line, and the line that it starts on, from 1.

        Args:
            seen: gets the lines that were read for it.
        """
        line = 1
        try:
            with self._open() as file:
                lines = file if seen is None else _noted(file, seen)
                reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
                for cells in reader:
                    if cells:
                        yield line, cells
                    line = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f"{self.path}:{line}: not CSV: {error}") from error

    @contextmanager
    def _open(self) -> Iterator[IO[str]]:
        try:
            with open(self.full, encoding="utf-8-sig", newline="") as file:
                yield file
        except UnicodeDecodeError:
            with open(self.full, "rb") as raw:
                for number, line in enumerate(raw, start=1):
                    try:
                        line.decode()
                    except UnicodeDecodeError as error:
                        raise DataError(
                            f"{self.path}:{number}: 0x{line[error.start]:02x} is not UTF-8 ({error.reason})"
                        ) from error
            raise

    @cached_property
    def _head(self) -> tuple[int, list[str], int]:
        """The header's line, its cells, and the bytes up to its end."""
        seen: list[str] = []
        for line, cells in self.records(seen):
            return line, [cell.strip() for cell in cells], len("".join(seen).encode())
        raise DataError(f"{self.path}: is empty; a CSV file starts with a header")

    @property
    def header(self) -> list[str]:
        return self._head[1]

    @property
    def first(self) -> int:
        """The header's line."""
        return self._head[0]

    @cached_property
    def quoted(self) -> bool:
        """Whether a quote stands anywhere below the header, or the header has several lines."""
        with open(self.full, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            end = self._head[2]
            return data.find(b'"', end) >= 0 or b"\n" in data[:end].strip()

    def check(self, width: int) -> None:
        """Raises:
        DataError: rows of another width than the header, all of them.
        """
        problems, count = [], 0
        for line, cells in self.records():
            if len(cells) != width:
                count += 1
                if count <= SHOWN:
                    many = "s" if len(cells) != 1 else ""
                    problems.append(f"{self.path}:{line}: {len(cells)} cell{many}, the header has {width}")
        if problems:
            raise DataError(listed(problems, "\n", of=count))

    def at(self, row: int) -> str:
        """The place of a row below the header."""
        while len(self._lines) <= row + 1:
            self._lines.append(next(self._rest)[0])
        return f"{self.path}:{self._lines[row + 1]}"


def _noted(lines: Iterable[str], seen: list[str]) -> Iterator[str]:
    for line in lines:
        seen.append(line)
        yield line
