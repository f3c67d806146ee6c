"""`check`, `show` and `schema`: what a job, a sweep or a cluster says, without torch or Ray."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from dlsys.cli.output import AsJson, give
from dlsys.spec.ready import find

File = Annotated[str, typer.Argument(help="A file, or the name of a ready one (vision/lenet5).")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Dotted overrides: optimizer.lr=0.01")
]


def check(
    file: File,
    overrides: Overrides = None,
    no_data: Annotated[
        bool, typer.Option("--no-data", help="Leave the files alone that the job reads.")
    ] = False,
) -> None:
    """Validate a job, sweep or cluster file: all problems at once (exit code 2)."""
    from dlsys.spec import load_any

    load_any(find(file), overrides or (), there="none" if no_data else "all")
    print(f"{file}: ok")


def show(
    file: File,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Print a job, sweep or cluster with all defaults and overrides filled in."""
    from dlsys.spec import load_any
    from dlsys.spec.files import placed
    from dlsys.spec.load import Loaded

    loaded = load_any(find(file), overrides or (), there="none")
    plain = loaded.spec.model_dump(mode="json")
    if isinstance(loaded, Loaded):
        plain = placed(loaded.job, loaded.folder)  # what is printed is kept in another folder
    if as_json:
        give(plain, indent=2)
    else:
        from dlsys.spec import yaml

        print(yaml.dump(plain), end="")


def schema(
    kind: Annotated[
        Literal["train", "rl", "script", "sweep", "cluster"], typer.Argument(help="The kind of file.")
    ] = "train",
) -> None:
    """Print the JSON Schema of job, agent, script, sweep or cluster files, for editors."""
    from dlsys.spec import schema as schemas

    made = {
        "train": schemas.schema,
        "rl": schemas.rl_schema,
        "script": schemas.script_schema,
        "sweep": schemas.sweep_schema,
        "cluster": schemas.cluster_schema,
    }
    give(made[kind](), indent=2)
