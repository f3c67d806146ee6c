"""`check`, `show` and `schema`: what a job, a sweep or a cluster says, without torch or Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dlsys.cli.output import AsJson, give
from dlsys.errors import UsageError
from dlsys.registry import did_you_mean

File = Annotated[str, typer.Argument(help="A file, or the name of a ready one (vision/lenet5).")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Dotted overrides: optimizer.lr=0.01")
]


def ready_folder() -> Path:
    """Where the ready files lie: links to their folders in a checkout, copies of them in a wheel."""
    import dlsys

    return Path(dlsys.__file__).parent / "ready"


def find(name: str) -> Path:
    """The file of this path, or the ready one of this name: `vision/lenet5`, `tune/lenet5_asha`,
    `cluster/two_nodes`.

    Raises:
        UsageError: neither exists.
    """
    path = Path(name)
    if path.exists() or path.suffix in (".yaml", ".yml"):
        return path
    folder = ready_folder()
    files = sorted(file for kind in ("jobs", "tune", "cluster") for file in (folder / kind).rglob("*.yaml"))
    names = (file.relative_to(folder).with_suffix("").as_posix() for file in files)
    ready = {name.removeprefix("jobs/"): file for name, file in zip(names, files, strict=True)}
    if name in ready:
        return ready[name]
    raise UsageError(
        f"{name}: no such file, and no ready one of this name.{did_you_mean(name, ready)}",
        hint=f"Ready files: {', '.join(ready)}",
    )


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
