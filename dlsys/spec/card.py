"""A card: the facts of a workload, readable without torch."""

from __future__ import annotations

import math
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


@dataclass(frozen=True)
class Cut:
    """How tensor parallelism cuts one layer among the workers that share a model.

    Attributes:
        style: `column`: each computes some of an affine layer's outputs and keeps them, for a `row`
            layer next to come, whose inputs they are; elementwise layers may stand between.
            `row`: each computes from its inputs a part of every output; the parts are added up.
            `gather`: as `column`, of an affine layer or an embedding, and each then gets all outputs.
            `groups`: each computes some groups of a grouped convolution, and gets all outputs.
        units: what is cut: outputs, inputs (`row`) or groups; None where the data decides.
    """

    style: Literal["column", "row", "gather", "groups"]
    units: int | None = None


def uneven(cuts: Mapping[str, Cut], size: int) -> str:
    """Why `size` workers cannot share every layer equally, and how to mend it; empty if they can."""
    for name, cut in cuts.items():
        if cut.units is not None and cut.units % size:
            common = math.gcd(*(cut.units for cut in cuts.values() if cut.units is not None))
            fits = [n for n in range(1, common + 1) if common % n == 0]
            near = [*(n for n in fits if n < size)][-1:] + [n for n in fits if n > size][:1]
            return (
                f"{size} workers cannot share the {cut.units} {_UNITS[cut.style]} of {name} equally: "
                f"use a size that divides {common}, such as {' or '.join(map(str, near))}"
            )
    return ""


_UNITS = {"column": "outputs", "row": "inputs", "gather": "outputs", "groups": "groups"}

# Strategies that ask nothing of a model.
DATA_PARALLEL = ("single", "ddp", "ring", "ps", "fsdp", "zero")


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
        inexact: from options to why several workers compute not quite the same as one; empty where
            they do, but for dropout.
        has_dropout: whether the model has dropout layers that a regularizer can set.
        blocks: names of the submodules that make up the whole model. A pipeline may cut between
            them, in this order, where `pipeline` is allowed; FSDP gathers one at a time.
        tensor_plan: from options to the layers that tensor parallelism cuts, by their names in the
            model (`tables.*` names all of `tables`); the others are whole on every worker.
        experts: from options to the experts of each mixture, which expert parallelism deals out.
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
    strategies: tuple[str, ...] = DATA_PARALLEL
    inexact: Callable[[Any], str] = field(default=lambda options: "", repr=False)
    has_dropout: bool = False
    blocks: tuple[str, ...] = ()
    tensor_plan: Callable[[Any], Mapping[str, Cut]] | None = field(default=None, repr=False)
    experts: Callable[[Any], int] | None = field(default=None, repr=False)
    parameters: Callable[[Any, Shape], int] = field(repr=False)
    flops: Callable[[Any, Shape], int] = field(repr=False)
    activation_bytes: Callable[[Any, Shape], int] = field(repr=False)

    def uneven_cuts(self, options: Any, size: int) -> str:
        """Why `size` workers cannot share the layers of `tensor_plan` equally; empty if they can."""
        return uneven(self.tensor_plan(options), size) if self.tensor_plan else ""
