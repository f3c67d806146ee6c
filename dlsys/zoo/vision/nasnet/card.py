"""The card of NASNet."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from dlsys.spec.card import Card, Tiny
from dlsys.spec.rows import IMAGES_WITH_CLASSES, Shape
from dlsys.spec.section import Count, NonNegativeInt, Number, Section
from dlsys.spec.task import CLASSIFY

Operation = Literal["skip", "average3", "max3", "separable3", "separable5", "separable7"]
# An operation, and the number of the state that it is of.
Edge = tuple[Operation, NonNegativeInt]


class CellOptions(Section):
    """A cell: state 0 is what the cell before the last gave, state 1 what the last one gave, and each pair
    adds up two operations on earlier states to a new one."""

    pairs: Annotated[tuple[tuple[Edge, Edge], ...], Field(min_length=1)]
    """For each new state, from number 2 on, its two operations: `[[separable5, 1], [separable3, 0]]`."""
    gives: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]
    """The states that the cell gives, one behind the other."""

    @field_validator("pairs")
    @classmethod
    def _of_earlier_states(cls, pairs: tuple[tuple[Edge, Edge], ...]) -> tuple[tuple[Edge, Edge], ...]:
        for number, pair in enumerate(pairs, 2):
            for operation, of in pair:
                if of >= number:
                    raise ValueError(
                        f"state {number} cannot be {operation} of state {of}: use one from 0 to {number - 1}"
                    )
        return pairs

    @field_validator("gives")
    @classmethod
    def _known(cls, gives: tuple[int, ...], others: Any) -> tuple[int, ...]:
        states = len(others.data.get("pairs", ())) + 2
        if wrong := [of for of in gives if of >= states]:
            raise ValueError(f"there is no state {wrong[0]}: use some from 0 to {states - 1}")
        return gives


# NASNet-A's: the paper's figure 4.
NORMAL = CellOptions(
    pairs=(
        (("separable5", 1), ("separable3", 0)),
        (("separable5", 0), ("separable3", 0)),
        (("average3", 1), ("skip", 0)),
        (("average3", 0), ("average3", 0)),
        (("separable3", 1), ("skip", 1)),
    ),
    gives=(0, 2, 3, 4, 5, 6),
)
REDUCTION = CellOptions(
    pairs=(
        (("separable5", 1), ("separable7", 0)),
        (("max3", 1), ("separable7", 0)),
        (("average3", 1), ("separable5", 0)),
        (("average3", 2), ("skip", 3)),
        (("separable3", 2), ("max3", 1)),
    ),
    gives=(3, 4, 5, 6),
)


class NASNetOptions(Section):
    """The cells of a NASNet, and how many there are."""

    filters: Annotated[Count, Field(multiple_of=4)] = 8
    """Maps of each state of the first cells; they double at each reduction."""
    repeats: Count = 1
    """Normal cells before, between and after the two reductions."""
    stem: Literal["small", "large"] = "small"
    """`large`: a convolution of stride 2 and two reduction cells, which divide images by 8. `small`: one
    convolution, for small images."""
    normal: CellOptions = NORMAL
    """The cell that keeps height and width; by default NASNet-A's."""
    reduction: CellOptions = REDUCTION
    """The cell that halves them."""
    dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """The rate before the last layer."""

    @field_validator("reduction")
    @classmethod
    def _reduces(cls, reduction: CellOptions) -> CellOptions:
        last = len(reduction.pairs) + 1
        if whole := [of for of in reduction.gives if of < 2]:
            raise ValueError(f"state {whole[0]} is as large as what comes in: give some from 2 to {last}")
        return reduction


CARD = Card(
    name="nasnet",
    title="NASNet: two cells that a search has found, repeated",
    paper="Zoph et al. 2018, arXiv:1707.07012",
    workload="dlsys.zoo.vision.nasnet.model:NASNet",
    options=NASNetOptions,
    task=CLASSIFY,
    takes=(IMAGES_WITH_CLASSES,),
    # 4 @ 1056: four cells each, and 1,056 maps before the last layer.
    presets={"mobile": {"filters": 44, "repeats": 4, "stem": "large", "dropout": 0.5}},
    published={"mobile": 5_289_978},
    at=Shape(row={"image": (3, 224, 224), "label": ()}, classes=1000),
    traits=("running-statistics", "dropout"),
    inexact=lambda options: "batch norm sees only its own worker's rows",
    blocks=("stem", "cells", "head"),
    tiny=(Tiny(options={"filters": 4}),),
)
