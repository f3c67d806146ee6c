"""The card of AnyNet, the design space that RegNets are found in."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field, model_validator

from dlsys.spec.card import Card, Tiny
from dlsys.spec.rows import IMAGES_WITH_CLASSES, Shape
from dlsys.spec.section import Count, Fraction, Int, NonNegative, Number, Section
from dlsys.spec.task import CLASSIFY

STAGES = 4
_EIGHT = 8
_DEPTHS, _WIDTHS = (1, 1, 2, 1), (32, 64, 128, 256)
OfStages = Annotated[tuple[Count, ...], Field(min_length=STAGES, max_length=STAGES)]


class Linear(Section):
    """Widths that grow by a line, u_j = initial + slope · j for block j, as a RegNet's do."""

    depth: Annotated[Count, Field(ge=STAGES)]
    """Blocks of all stages."""
    initial: Count
    """Width of the line at the first block, w_0."""
    slope: NonNegative
    """What each block adds to it, w_a."""
    multiplier: Annotated[Number, Field(gt=1)]
    """Between the widths of two stages, w_m: a block has the width initial · multiplier^s that is nearest to
    the line, in multiples of 8."""

    @property
    def stages(self) -> dict[int, int]:
        """Blocks of each stage by its width (the paper's equations 2 to 4)."""
        found: dict[int, int] = {}
        for block in range(self.depth):
            stage = round(math.log1p(self.slope * block / self.initial) / math.log(self.multiplier))
            width = _EIGHT * round(self.initial * self.multiplier**stage / _EIGHT)
            found[width] = found.get(width, 0) + 1
        return found


class AnyNetOptions(Section):
    """A net of the space: what each of its four stages is."""

    stem: Count = 32
    """Maps of the stem."""
    depths: OfStages = _DEPTHS
    """Blocks of each stage."""
    widths: OfStages = _WIDTHS
    """Maps of each stage's blocks."""
    linear: Linear | None = None
    """Decides depths and widths in their place; widths become multiples of a group's."""
    groups: OfStages = (16, 16, 16, 16)
    """Maps that a 3 × 3 convolution's group sees, of each stage; at most all."""
    bottleneck: Annotated[Number, Field(ge=1)] = 1.0
    """How many times as many maps a block has as its 3 × 3 convolution."""
    squeeze: Fraction = 0.0
    """Squeeze and excitation, with so large a part of what goes into a block as its units; 0 is without."""
    size: Annotated[Int, Field(ge=32)] = 32
    """Pixels a side to which smaller images are enlarged first: the net halves them five times."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The four stages, as they are built."""
        found = self.linear.stages if self.linear else None
        depths, widths = (tuple(found.values()), tuple(found)) if found else (self.depths, self.widths)
        return tuple(
            Stage(self, blocks, maps, group)
            for blocks, maps, group in zip(depths, widths, self.groups, strict=False)
        )

    @model_validator(mode="after")
    def _are_four_stages_of_whole_groups(self) -> AnyNetOptions:
        if self.linear and (self.depths, self.widths) != (_DEPTHS, _WIDTHS):
            raise ValueError("linear decides depths and widths: leave them out")
        if self.linear and len(self.linear.stages) != STAGES:
            widths = ", ".join(map(str, self.linear.stages))
            raise ValueError(
                f"linear makes {len(self.linear.stages)} stages (widths {widths}), "
                "and a net has 4: a smaller multiplier, a larger slope or more depth makes more"
            )
        for number, stage in enumerate(self.stages, start=1):
            if stage.inner % stage.group or stage.inner * self.bottleneck != stage.maps:
                raise ValueError(
                    f"the {stage.maps} maps of stage {number}, over bottleneck {self.bottleneck:g}, must be "
                    f"whole groups of {stage.group}: try {stage.fitting}"
                )
        return self


class Stage:
    """A stage of a net.

    Attributes:
        blocks: how many.
        maps: of each block.
        inner: maps of its 3 × 3 convolution.
        group: maps of one group of it.
        fitting: maps near those that are asked for, of whole groups.
    """

    def __init__(self, options: AnyNetOptions, blocks: int, maps: int, group: int) -> None:
        inner = max(1, int(maps / options.bottleneck))
        self.blocks, self.maps, self.inner, self.group = blocks, maps, inner, min(group, inner)
        whole = self.group * max(1, round(inner / self.group))
        self.fitting = int(whole * options.bottleneck)
        if options.linear:
            self.maps, self.inner = self.fitting, whole


def _inexact(options: AnyNetOptions) -> str:  # noqa: ARG001
    return "batch norm sees only its own worker's rows"


CARD = Card(
    name="anynet",
    title="AnyNet: a net of four stages of any depth, width and groups",
    paper="Radosavovic et al. 2020, arXiv:2003.13678",
    workload="dlsys.zoo.vision.anynet.model:AnyNet",
    options=AnyNetOptions,
    task=CLASSIFY,
    takes=(IMAGES_WITH_CLASSES,),
    presets={
        "regnetx-400mf": {
            "linear": {"depth": 22, "initial": 24, "slope": 24.48, "multiplier": 2.54},
            "size": 224,
        },
        "regnety-400mf": {
            "linear": {"depth": 16, "initial": 48, "slope": 27.89, "multiplier": 2.09},
            "groups": (8, 8, 8, 8),
            "squeeze": 0.25,
            "size": 224,
        },
        "regnet-small": {
            "linear": {"depth": 6, "initial": 24, "slope": 36.0, "multiplier": 2.0},
            "groups": (8, 8, 8, 8),
            "squeeze": 0.25,
        },
    },
    # The paper's tables 2 and 3 round to 5.2 and 4.3 million.
    published={"regnetx-400mf": 5_157_512, "regnety-400mf": 4_344_144},
    at=Shape(row={"image": (3, 224, 224), "label": ()}, classes=1000),
    traits=("running-statistics", "sequential"),
    inexact=_inexact,
    blocks=("stem", "stage1", "stage2", "stage3", "stage4", "head"),
    tiny=(
        Tiny(
            options={"stem": 8, "depths": [1, 1, 1, 1], "widths": [8, 8, 16, 16], "groups": [4, 8, 8, 16]},
        ),
        Tiny(
            options={
                "stem": 8,
                "depths": [1, 2, 1, 1],
                "widths": [8, 16, 16, 32],
                "groups": [4, 4, 4, 4],
                "bottleneck": 2.0,
                "squeeze": 0.25,
            },
        ),
    ),
)
