"""What columns of a table are taken for, as a page: the second part of `make limits`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from dlsys.data.features.files import csv_file
from dlsys.errors import DataError
from dlsys.spec.data import CSVFile

ROWS = 200

# What a row holds, by its number.
COLUMNS: dict[str, Callable[[int], str]] = {
    "whole numbers": lambda row: str(row % 7),
    "numbers with a point": lambda row: f"{row / 7:.3f}",
    "numbers with gaps": lambda row: "" if row % 9 == 0 else str(row % 7),
    "numbers, and `NA`": lambda row: "NA" if row % 9 == 0 else str(row % 7),
    "numbers, and a few words": lambda row: "unknown" if row % 50 == 0 else str(row % 7),
    "decimal commas": lambda row: f'"{row % 7},{row % 10}"',
    "thousands with commas": lambda row: f'"{row % 7 + 1},000"',
    "`5%`": lambda row: f"{row % 7}%",
    "numbers that are names, `0123`": lambda row: f"{row % 7:04d}",
    "hexadecimal ids, some like `1e999`": lambda row: "1e999" if row % 5 == 0 else f"{row % 7:03x}f",
    "`true` and `false`": lambda row: ("true", "false")[row % 2],
    "a few words": lambda row: ("red", "green", "blue")[row % 3],
    "another word in every row": lambda row: f"name-{row}",
    "dates": lambda row: f"2026-{row % 12 + 1:02d}-{row % 28 + 1:02d}",
    "`1` and `1.0`": lambda row: ("1", "1.0", "2")[row % 3],
    "another number in every row": lambda row: f"{row * 1.37:.2f}",
    "one value": lambda row: "same",
    "nothing": lambda row: "",
}


def taken_for(write: Callable[[int], str], *, target: bool, missing: str) -> str:
    """What a job says that it read, or its refusal."""
    options = CSVFile(source="csv", path="t.csv", target="y", missing=missing)
    with tempfile.TemporaryDirectory() as folder:
        rows = [(write(row), str(row % 2)) for row in range(ROWS)]
        lines = [",".join(cells[::-1] if target else cells) for cells in rows]
        Path(folder, "t.csv").write_text("\n".join(["x,y", *lines]))
        try:
            notes = csv_file(options, Path(folder)).notes
        except DataError as error:
            said = str(error).splitlines()[0].replace("t.csv: ", "").replace("t.csv:", "line ")
            return "refused: " + said.replace("|", "\\|")
    found = next(note for note in notes if "rows;" in note)
    alone = "; a class with a single row is told" if any("a single row" in note for note in notes) else ""
    parts = found.partition("; ")[2].split("; ")
    return parts[-1].partition("target y: ")[2] + alone if target else parts[0]


def main() -> None:
    """Prints the page's part."""
    print("\n# What columns may be made of\n")
    print(f"Of {ROWS} rows, with `missing: mean`. What is refused is so until the job says which it is:")
    print("the rule is in [data.md](data.md).\n")
    print("| a column of | to learn from | as the class to predict |\n|---|---|---|")
    for title, write in COLUMNS.items():
        cells = [taken_for(write, target=target, missing="mean") for target in (False, True)]
        print(f"| {title} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
