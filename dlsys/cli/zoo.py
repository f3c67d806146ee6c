"""`zoo`: the catalogue of workloads."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

app = typer.Typer(help="Look at the catalogue of workloads.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_workloads(as_json: AsJson = False) -> None:
    """List the workloads."""
    from dlsys.registry import WORKLOADS

    rows = [{"name": name, "title": WORKLOADS.load(name).title} for name in WORKLOADS.names()]
    if as_json:
        print(json.dumps(rows))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        print(f"{row['name']:{width}}  {row['title']}")


@app.command()
def show(name: Annotated[str, typer.Argument(help="A workload's name.")], as_json: AsJson = False) -> None:
    """Show a workload's card and its options."""
    from dlsys.registry import WORKLOADS

    card = WORKLOADS.load(name)
    row: dict[str, Any] = {
        "name": card.name,
        "title": card.title,
        "paper": card.paper,
        "sources": list(card.sources),
        "metrics": ["loss", *card.metrics],
        "strategies": list(card.strategies),
        "same_on_any_number_of_workers": _sameness(card),
    }
    options = {
        field: {"default": info.get_default(call_default_factory=True), "about": info.description}
        for field, info in card.options.model_fields.items()
    }
    if as_json:
        print(json.dumps({**row, "options": options}, default=str))
        return
    for key, value in row.items():
        print(f"{key.replace('_', ' '):31} {', '.join(value) if isinstance(value, list) else value}")
    print("options of model:")
    for field, option in options.items():
        print(f"  {field:12} {option['default']!s:12} {option['about']}")


def _sameness(card: Any) -> str:
    if why := card.inexact(card.options()):
        return str(why)
    return "yes, but for dropout" if card.has_dropout else "yes"
