"""Tables in files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pyarrow as pa

from dlsys.data.dataset import Splits
from dlsys.data.features.cells import Cells, joined
from dlsys.data.features.csv_text import read_csv
from dlsys.data.features.encoding import Allocate, Encoded, encode
from dlsys.data.features.kept import kept
from dlsys.data.features.table import choose
from dlsys.spec.data.tables import ArrowFile, CSVFile, JSONLines, ParquetFile, TableSection
from dlsys.spec.fingerprint import digest

# A larger file is encoded once, and kept.
LARGE = 64 * 2**20

# Reads a file's cells, given one for the text that is not to be held in memory.
_Read = Callable[[str, Path | None], Cells]


def csv_file(options: CSVFile, folder: Path) -> Splits:
    """A CSV file with a header. As `_table` otherwise."""

    def read(path: str, spill: Path | None) -> Cells:
        return read_csv(
            path,
            folder,
            options.delimiter,
            spill,
            decimal=options.decimal,
            thousands=options.thousands,
        )

    return _table(options, folder, read)


def parquet_file(options: ParquetFile, folder: Path) -> Splits:
    """A Parquet file, or a folder of such. As `_table` otherwise."""
    from dlsys.data.features.typed_files import read_parquet

    wanted = None
    if options.chosen:
        by = options.split_by.column if options.split_by else ""
        wanted = [*options.chosen, options.target, *([by] if by and by not in options.chosen else [])]
    return _table(options, folder, lambda path, _: read_parquet(path, folder, wanted))


def arrow_file(options: ArrowFile, folder: Path) -> Splits:
    """An Arrow file. As `_table` otherwise."""
    from dlsys.data.features.typed_files import read_arrow

    return _table(options, folder, lambda path, _: read_arrow(path, folder))


def json_lines(options: JSONLines, folder: Path) -> Splits:
    """A file with a JSON object in each line. As `_table` otherwise."""
    from dlsys.data.features.typed_files import read_jsonl

    return _table(options, folder, lambda path, _: read_jsonl(path, folder))


def _table(options: TableSection, folder: Path, read: _Read) -> Splits:
    """Rows `features` float32 (F,), and `label` int64 or `target` float32.

    `columns` says what a column is taken for. Numbers are standardised with the mean and deviation of the
    training rows. Any other column becomes one feature for each category of the training rows, 1 or 0; a
    category seen only later is all zeros. Columns keep the file's order. Classes are numbered in the order
    of numbers, or of text; a regression target stays in its own unit.

    Raises:
        DataError: names file and line, or the column.
    """
    paths = {"train": options.path, **(options.split_by.files if options.split_by else {})}
    places = [folder / path for path in paths.values()]
    make = partial(_encoded, options, paths, read)
    if not all(place.exists() for place in places) or sum(map(_size, places)) <= LARGE:
        return make(None, None).splits()
    facts = [fact for place in places for fact in (digest(place), place.stat().st_mtime_ns)]
    told = options.model_dump(mode="json", exclude={"prefetch", "workers"})
    return kept(options.path, [*facts, told], make).splits()


def _size(path: Path) -> int:
    files = path.rglob("*.parquet") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def _encoded(
    options: TableSection,
    paths: Mapping[str, str],
    read: _Read,
    spill: Path | None,
    allocate: Allocate | None,
) -> Encoded:
    table = choose(_cells(paths, read, spill), options)
    # The text of what are numbers is gone; numpy, which works from here, has no use for its room in Arrow.
    pa.default_memory_pool().release_unused()
    return encode(table, options, allocate) if allocate else encode(table, options)


def _cells(paths: Mapping[str, str], read: _Read, spill: Path | None) -> Cells:
    cells = {part: read(path, spill / f"{part}.arrow" if spill else None) for part, path in paths.items()}
    return joined(cells) if len(cells) > 1 else cells["train"]
