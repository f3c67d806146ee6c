"""`data show`: what the columns of a table would be taken for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlsys.cli.output import AsJson, give
from dlsys.cli.report import table
from dlsys.errors import DataError

if TYPE_CHECKING:
    from dlsys.data.features.cells import Cells

app = typer.Typer(help="What is in a data file.", no_args_is_help=True)
_TITLES = ("column", "kind", "values", "missing", "examples", "note")


@app.callback()
def _data() -> None:
    """Keeps `show` a verb of its own, with others to come."""


@app.command()
def show(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A table: CSV, Parquet, Arrow or JSON lines."),
    ],
    delimiter: Annotated[str, typer.Option(help="Between two cells.")] = ",",
    decimal: Annotated[str, typer.Option(help="Before a number's fraction.")] = ".",
    thousands: Annotated[str | None, typer.Option(help="Between a number's digits.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print each column of a table: what it is taken for, its values, and what is doubtful."""
    from dlsys.data.features.csv_text import read_csv
    from dlsys.data.features.typed_files import READERS

    suffix = next(iter([*file.rglob("*.parquet")]), file).suffix if file.is_dir() else file.suffix
    read = READERS.get(suffix.lower())
    if read:
        cells = read(str(file), Path())
    else:
        cells = read_csv(str(file), Path(), delimiter, decimal=decimal, thousands=thousands)

    found = [_described(cells, name) for name in cells.header]
    rows = len(cells)
    if as_json:
        give({"file": str(file), "rows": rows, "columns": found})
        return
    print(f"{file}: {rows:,} rows, {len(found)} columns")
    print(table(_TITLES, [[line[title] for title in _TITLES] for line in found]))


def _described(cells: Cells, name: str) -> Mapping[str, str]:
    from dlsys.data.features.columns import describe

    try:
        return describe(cells.column(name))
    except DataError as error:  # of a type from which no feature is made
        return {**dict.fromkeys(_TITLES, ""), "column": name, "kind": "doubtful", "note": str(error)}
