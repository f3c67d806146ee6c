"""`check`, `show` and `schema`: what a job file says, without torch or Ray."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from dlsys.errors import UsageError
from dlsys.registry import did_you_mean

File = Annotated[str, typer.Argument(help="A job file, or the name of a ready one (vision/lenet5).")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Dotted overrides: optimizer.lr=0.01")
]


def ready_folder() -> Path:
    """Where the ready job files lie: a link to jobs/ in a checkout, a copy of it in a wheel."""
    import dlsys

    return Path(dlsys.__file__).parent / "ready" / "jobs"


def find(name: str) -> Path:
    """The job file of this path, or the ready one of this name.

    Raises:
        UsageError: neither exists.
    """
    path = Path(name)
    if path.exists() or path.suffix in (".yaml", ".yml"):
        return path
    folder = ready_folder()
    ready = sorted(str(file.relative_to(folder).with_suffix("")) for file in folder.rglob("*.yaml"))
    if name in ready:
        return folder / f"{name}.yaml"
    raise UsageError(
        f"{name}: no such file, and no ready job of this name.{did_you_mean(name, ready)}",
        hint=f"Ready jobs: {', '.join(ready)}",
    )


def check(file: File, overrides: Overrides = None) -> None:
    """Validate a job file: all problems at once (exit code 2)."""
    from dlsys.spec import load

    load(find(file), overrides or ())
    print(f"{file}: ok")


def show(
    file: File,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print a job with all defaults and overrides filled in."""
    from dlsys.spec import load

    job = load(find(file), overrides or ()).job.model_dump(mode="json")
    if as_json:
        print(json.dumps(job, indent=2))
    else:
        from dlsys.spec import yaml

        print(yaml.dump(job), end="")


def schema() -> None:
    """Print the JSON Schema of job files, for editors."""
    from dlsys.spec.schema import schema as job_schema

    print(json.dumps(job_schema(), indent=2))
