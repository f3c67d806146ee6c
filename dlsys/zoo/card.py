"""A card: the facts of a workload, readable without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dlsys.spec.section import Section


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a data source hands out, as a workload needs to know it to build its model.

    Attributes:
        row: the shape of one row of each field, without the batch dim: `{"image": (1, 8, 8)}`.
        classes: the number of classes of `label`; 0 where there is none.
        cardinalities: values of each categorical column, in order.
        vocabulary: the tokens of a text, in the order of their ids.
    """

    row: Mapping[str, tuple[int, ...]]
    classes: int = 0
    cardinalities: tuple[int, ...] = ()
    vocabulary: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Card:
    """The facts of one workload. Tests hold every figure here against the built model.

    Attributes:
        name: what a job file says.
        title: one line for a listing.
        paper: where it comes from.
        workload: `module:Class` of the code.
        options: the type of the job file's `model:` section.
        sources: the data sources it can train on.
        metrics: names measured on validation and test data besides `loss`, and whether the
            largest or the smallest value is the best.
        strategies: the strategies that it runs under.
        exact: whether several workers compute the same as one. `inexact_because` says why not.
        has_dropout: whether the model has dropout layers that a regularizer can set.
        blocks: names of the submodules a pipeline may cut between, in order.
        parameters: trainable numbers, from (options, shape).
        flops: floating-point operations of one row's forward pass, from (options, shape):
            2 for each multiply-add of a matrix product or convolution, nothing for the rest.
        activation_bytes: bytes in fp32 that a row's forward pass keeps for backward, from
            (options, shape): the outputs of all layers with parameters and of all activations.
    """

    name: str
    title: str
    paper: str
    workload: str
    options: type[Section]
    sources: tuple[str, ...]
    metrics: Mapping[str, Literal["max", "min"]]
    strategies: tuple[str, ...] = ("single", "ddp")
    exact: bool = True
    inexact_because: str = ""
    has_dropout: bool = False
    blocks: tuple[str, ...] = ()
    parameters: Callable[[Any, Shape], int] = field(repr=False)
    flops: Callable[[Any, Shape], int] = field(repr=False)
    activation_bytes: Callable[[Any, Shape], int] = field(repr=False)
