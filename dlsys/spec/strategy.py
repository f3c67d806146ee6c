"""`strategy:` — how several workers train one model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dlsys.spec.section import Bool, Count, Section


class Single(Section):
    """One worker, one device: what every other strategy is held against."""

    name: Literal["single"]


class DDP(Section):
    """Each worker holds the whole model; gradients are averaged by all-reduce (torch DDP)."""

    name: Literal["ddp"]
    bucket_mb: Count = 25
    """MiB of gradients that travel together while backward goes on."""
    static_graph: Bool = False
    """Promise that every step uses the same parameters: lets DDP skip some work."""


Strategy = Annotated[Single | DDP, Field(discriminator="name")]
