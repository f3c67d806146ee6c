"""Options that several verbs have."""

from __future__ import annotations

from typing import Annotated

import typer

Cluster = Annotated[
    str | None,
    typer.Option("--cluster", metavar="NAME", help="By default DLSYS_CLUSTER, or the only one that is up."),
]
Uri = Annotated[str | None, typer.Option("--uri", help="An MLflow store; by default the one of this folder.")]
