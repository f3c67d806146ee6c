"""`zoo`: the catalogue of workloads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlsys.cli.files import Overrides
from dlsys.cli.output import AsJson, give

if TYPE_CHECKING:
    from dlsys.spec.card import Card

app = typer.Typer(help="Look at the catalogue of workloads.", no_args_is_help=True)
_LIKE = 10


@app.command("list")
def list_workloads(
    like: Annotated[
        str, typer.Option(metavar="TEXT", help=f"Only the {_LIKE} whose names are most like this one.")
    ] = "",
    library: Annotated[
        str, typer.Option(metavar="NAME", help="What timm, torchvision or transformers build, as NAME/….")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """List the workloads."""
    from dlsys.registry import like as most_like
    from dlsys.spec.catalogue import WORKLOADS

    if library:
        from dlsys.zoo.library import names as built

        every = built(library)
        found = [f"{library}/{name}" for name in (most_like(like, every)[:_LIKE] if like else every)]
        if as_json:
            give([{"name": name} for name in found])
        else:
            print("\n".join(found))
        return
    names = most_like(like, WORKLOADS.names())[:_LIKE] if like else WORKLOADS.names()
    rows = [{"name": name, "title": _title(WORKLOADS.load(name))} for name in names]
    if as_json:
        give(rows)
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        print(f"{row['name']:{width}}  {row['title']}")


def _title(card: Card) -> str:
    return f"{card.title} (preset {card.preset})" if card.preset else card.title


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A workload's name, library/name, or your own module:Class.")],
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Show a workload: what it is, what it learns from, and what it costs with these options and data.

    With `data.source=digits model.width=2` parameters, operations and memory are counted from its code;
    without a source, on the first that needs no file.
    """
    from dlsys.spec.catalogue import WORKLOADS

    card = WORKLOADS.load(name) if ":" not in name and "/" not in name else None
    row: dict[str, Any] = {
        "name": name,
        **(_of_card(card) if card else {}),
        **_counted(name, card, overrides),
    }
    options = {
        field: {"default": info.get_default(call_default_factory=True), "about": info.description}
        for field, info in (card.options.model_fields.items() if card else ())
    }
    if as_json:
        give({**row, "options": options})
        return
    for key, value in row.items():
        print(f"{key.replace('_', ' '):31} {_text(value)}")
    if options:
        print("options of model:")
    for field, option in options.items():
        print(f"  {field:12} {option['default']!s:12} {' '.join((option['about'] or '').split())}")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name} ({words})" for name, words in value.items())
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _of_card(card: Card) -> dict[str, Any]:
    from dlsys.spec.data.fit import fitting

    return {
        "title": _title(card),
        "version": card.version,
        "paper": card.paper,
        "task": card.task.name,
        "takes": [rows.words for rows in card.rows],
        "sources_that_fit": fitting(card.rows),
        "metrics": {metric: about.words for metric, about in card.metrics.items()},
        **({"learns": {name: about.words for name, about in card.learns.items()}} if card.learns else {}),
        "presets": list(card.presets),
        "strategies": list(card.strategies),
        "same_on_any_number_of_workers": _sameness(card),
    }


def _sameness(card: Card) -> str:
    if why := card.inexact(card.options_of({})):
        return why
    return "yes, but for dropout" if "dropout" in card.traits else "yes"


def _counted(name: str, card: Card | None, overrides: list[str] | None) -> dict[str, Any]:
    """The facts of the workload on a source; empty where none is given and all need files."""
    from dlsys.cli.facts import counted
    from dlsys.spec.data.fit import without_files
    from dlsys.spec.load import check
    from dlsys.spec.overrides import apply_overrides
    from dlsys.spec.train.job import TrainJob
    from dlsys.spec.yaml import COMMAND_LINE, Document

    given = overrides or []
    source = next(iter(without_files(card.rows)), None) if card else None
    if source is None and not any(text.startswith(("data.", "data=")) for text in given):
        return {}
    job = {
        "kind": "train",
        "name": "shown",
        "workload": name,
        "data": {"source": source} if source else {},
        "batch_size": 1,
        "stop": {"epochs": 1},
    }
    document = Document(COMMAND_LINE, job, {(): 0})
    apply_overrides(document, given)
    found = check(document)
    assert isinstance(found, TrainJob), "kind: train"
    told = counted(found, Path.cwd())
    return {
        "counted_on": found.data.source,
        "parameters": told.parameters,
        "FLOPs_of_a_row_forward": told.flops,
        "FLOPs_of_a_row_in_a_step": told.step_flops,
        "bytes_a_row_keeps_for_backward": told.activation_bytes,
    }
