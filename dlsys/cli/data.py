"""`data show`: what the columns of a table would be taken for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlsys.cli.output import AsJson, give
from dlsys.cli.report import table

app = typer.Typer(help="What is in a data file.", no_args_is_help=True)
_TITLES = ("column", "kind", "values", "missing", "examples", "note")


@app.callback()
def _data() -> None:
    """Keeps `show` a verb of its own, with others to come."""


@app.command()
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A CSV file with a header.")],
    delimiter: Annotated[str, typer.Option(help="Between two cells.")] = ",",
    decimal: Annotated[str, typer.Option(help="Before a number's fraction.")] = ".",
    thousands: Annotated[str | None, typer.Option(help="Between a number's digits.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print each column of a table: what it is taken for, its values, and what is doubtful."""
    from dlsys.data.features.columns import Column, describe
    from dlsys.data.features.csv_file import read_rows

    lines, header, rows = read_rows(str(file), Path(), delimiter)

    def column(place: int) -> Column:
        cells = [row[place] for row in rows]
        return Column(header[place], cells, lambda row: f"{file}:{lines[row + 1]}", decimal, thousands)

    found = [describe(column(place)) for place in range(len(header))]
    if as_json:
        give({"file": str(file), "rows": len(rows), "columns": found})
        return
    print(f"{file}: {len(rows):,} rows, {len(header)} columns")
    print(table(_TITLES, [[line[title] for title in _TITLES] for line in found]))
