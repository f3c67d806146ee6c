"""`data show`: what the columns of a table would be taken for; `data anchors`: a detector's, from boxes;
`data merge`: the boxes of several people as one set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlsys.cli.files import File, Overrides
from dlsys.cli.output import AsJson, give
from dlsys.cli.report import table
from dlsys.errors import DataError, UsageError
from dlsys.spec.ready import find

if TYPE_CHECKING:
    from dlsys.data.features.cells import Cells

app = typer.Typer(help="What is in a data file.", no_args_is_help=True)
_TITLES = ("column", "kind", "values", "missing", "examples", "note")


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


@app.command()
def anchors(
    file: File,
    overrides: Overrides = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="How many; by default as many as the job's model has.")
    ] = None,
) -> None:
    """Print the `anchors:` of a job's model that are most like the boxes of its training rows, by k-means."""
    import numpy as np

    from dlsys.data import load as load_data
    from dlsys.data.images.anchors import likeness, representative, sizes_of
    from dlsys.spec import load
    from dlsys.spec.catalogue import WORKLOADS

    loaded = load(find(file), overrides or ())
    job = loaded.training
    card = WORKLOADS.load(job.workload) if job.workload in WORKLOADS.names() else None
    own = getattr(card.options_of(job.model), "anchors", None) if card else None
    if count is None and own is None:
        raise UsageError(f"{file}: its model has no anchors: say how many are wanted, with --count")
    splits = load_data(job.data, loaded.folder)
    if not {"image", "boxes"} <= splits.shape.row.keys():
        raise UsageError(f"data.source: {job.data.source} gives no images with boxes")
    sizes = sizes_of(splits.train)
    found = np.round(representative(sizes, count or len(own or ())), 3)
    print(f"anchors: {found.tolist()}")

    def told(anchors: Any) -> str:
        return f"{likeness(sizes, np.array(anchors)).max(1).mean():.3f}"

    before = f"; with the job's own {len(own)}, {told(own)}" if own else ""
    typer.echo(
        f"{len(sizes):,} boxes have an IoU of {told(found)} with their best anchor on average{before}",
        err=True,
    )


@app.command()
def merge(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help="Annotations of the same images, in COCO's format.")
    ],
    to: Annotated[Path, typer.Option(help="The file that is written, in the same format.")],
) -> None:
    """Make one set of boxes of those that several people drew, who count by how well they agree."""
    import json

    from dlsys.data.images.crowd import merged_files

    if len(files) < 2:
        raise UsageError(f"{files[0]}: is of one person alone: name those of others too")
    told, people = merged_files(files)
    to.write_text(json.dumps(told))
    rows = [
        [str(file), f"{count:,}", f"{quality:.3f}"]
        for file, (count, quality) in zip(files, people, strict=True)
    ]
    print(table(("file", "boxes", "agreement"), rows))
    typer.echo(f"{to}: {len(told['annotations']):,} boxes in {len(told['images']):,} images", err=True)


def _described(cells: Cells, name: str) -> Mapping[str, str]:
    from dlsys.data.features.columns import describe

    try:
        return describe(cells.column(name))
    except DataError as error:  # of a type from which no feature is made
        return {**dict.fromkeys(_TITLES, ""), "column": name, "kind": "doubtful", "note": str(error)}
