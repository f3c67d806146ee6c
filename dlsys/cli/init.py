"""`init`: a folder to begin with, which trains as it is."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dlsys.errors import UsageError

_STARTS = Path(__file__).parent / "starts"
_TEST = '''\
"""Trains for a moment: does everything fit together? Run it with `pytest`."""

import dlsys


def test_it_trains():
    run = dlsys.run("job.yaml", changes={"stop.epochs": 1, "expect": {}}, quiet=True)
    assert run.status == "FINISHED"
    assert run.metrics["valid/loss"] > 0
'''


class Start(StrEnum):
    """What a folder begins with."""

    table = "table"
    images = "images"
    text = "text"
    script = "script"


def init(
    start: Annotated[Start, typer.Argument(help="What there is to learn from, or a script of your own.")],
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="FOLDER", help="Where to make it; by default of that name."),
    ] = None,
) -> None:
    """Make a folder with a job, a model, data and a test, to be changed into your own."""
    place = folder or Path(start.value)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UsageError(f"{place}: is there already, and not empty: give another folder")
    try:
        place.mkdir(parents=True, exist_ok=True)
        for source in sorted((_STARTS / start.value).iterdir()):
            (place / source.name.removesuffix(".txt")).write_text(source.read_text())
        if start in _DATA:
            (place / "test_job.py").write_text(_TEST)
            _DATA[start](place)
    except OSError as error:
        raise UsageError(f"{place}: cannot be made: {error.strerror}") from error
    for path in sorted(place.iterdir()):
        print(f"{place / path.name}{'/' * path.is_dir()}")
    typer.echo(f"Train it:  cd {place} && dlsys run job.yaml", err=True)


def _table(folder: Path) -> None:
    import numpy as np

    generator = np.random.default_rng(0)
    lines = ["age,city,income,bought"]
    for _ in range(600):
        age, income = int(generator.integers(18, 80)), float(generator.normal(3000, 900))
        city = str(generator.choice(["Oslo", "Rome", "Lima"]))
        likes = (age - 45) / 15 + {"Oslo": 1.5, "Rome": -1.0, "Lima": 0.0}[city] + generator.normal(0, 0.5)
        shown = "" if generator.random() < 0.05 else f"{income:.0f}"
        lines.append(f"{age},{city},{shown},{'yes' if likes > 0 else 'no'}")
    (folder / "people.csv").write_text("\n".join(lines) + "\n")


def _images(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    for name in ("stripes", "dots"):
        (folder / "pictures" / name).mkdir(parents=True)
        for number in range(60):
            pixels = generator.integers(0, 80, (40, 40, 3), dtype=np.uint8)
            step = int(generator.integers(5, 9))
            if name == "stripes":
                pixels[::step] += 150
            else:
                pixels[::step, ::step] += 150
                pixels[1::step, ::step] += 150
            Image.fromarray(pixels).save(folder / "pictures" / name / f"{number:02}.png")


def _text(folder: Path) -> None:
    import numpy as np

    generator = np.random.default_rng(0)
    words = {
        "good": ["great", "lovely", "moving", "clever", "warm"],
        "bad": ["dull", "slow", "silly", "cold", "noisy"],
    }
    things = ["film", "plot", "cast", "music", "ending", "camera"]
    lines = ["review,mood"]
    for _ in range(600):
        mood = str(generator.choice(["good", "bad"]))
        said = [f"a {generator.choice(words[mood])} {generator.choice(things)}" for _ in range(2)]
        said.append(f"the {generator.choice(things)} is a {generator.choice(things)}")
        lines.append(f'"{", and ".join(said)}.",{mood}')
    (folder / "reviews.csv").write_text("\n".join(lines) + "\n")


_DATA: dict[Start, Callable[[Path], None]] = {Start.table: _table, Start.images: _images, Start.text: _text}
