"""Cards of the models that everything starts from."""

from __future__ import annotations

import math

from pydantic import ValidationInfo, field_validator

from dlsys.spec.card import DATA_PARALLEL, Card, Cut, Shape
from dlsys.spec.section import Count, NonNegative, Positive, Section
from dlsys.zoo.cost import Cost, activation, dense


class SoftmaxRegressionOptions(Section):
    """Softmax regression has no options: the data decides its size."""


def input_field(shape: Shape) -> str:
    """The field that softmax regression reads."""
    return "image" if "image" in shape.row else "features"


def _softmax_regression(shape: Shape) -> Cost:
    return dense(math.prod(shape.row[input_field(shape)]), shape.classes)


SOFTMAX_REGRESSION = Card(
    name="softmax-regression",
    title="Softmax regression: one affine layer",
    paper="Cox 1958, The Regression Analysis of Binary Sequences, JRSS B 20(2)",
    workload="dlsys.zoo.foundation.softmax_regression:SoftmaxRegression",
    options=SoftmaxRegressionOptions,
    sources=("digits", "breast_cancer", "csv", "idx", "image-folder"),
    metrics={"accuracy": "max"},
    strategies=(*DATA_PARALLEL, "tensor"),
    tensor_plan=lambda _: {"1": Cut("gather")},
    parameters=lambda _, s: _softmax_regression(s).parameters,
    flops=lambda _, s: _softmax_regression(s).flops,
    activation_bytes=lambda _, s: _softmax_regression(s).activation_bytes,
)


class MixtureOptions(Section):
    """A layer of experts between two affine ones."""

    experts: Count = 8
    """Experts to choose from."""
    top: Count = 2
    """Experts that compute each row."""
    width: Count = 32
    """Numbers that go into an expert, and come out."""
    hidden: Count = 64
    """Hidden units of each expert."""
    capacity: Positive | None = None
    """An expert's room, as a multiple of an even share; rows beyond it pass that expert by. Null has
    room for all."""
    group: Count = 16
    """Neighbouring rows among which room and balance are reckoned. Several workers compute the same as
    one where each one's share of a batch is whole groups."""
    balance: NonNegative = 0.01
    """Weight of the loss that makes the gate use all experts alike."""

    @field_validator("top")
    @classmethod
    def _chooses_among_experts(cls, top: int, others: ValidationInfo) -> int:
        experts = others.data.get("experts")
        if experts is not None and top > experts:
            raise ValueError(f"cannot choose {top} of {experts} experts: use at most {experts}")
        return top


def _mixture(options: MixtureOptions, shape: Shape) -> Cost:
    width, hidden = options.width, options.hidden
    expert = dense(width, hidden) + activation(hidden) + dense(hidden, width)
    gate = Cost(width * options.experts, 2 * width * options.experts, options.experts)
    # All experts are kept, `top` of them compute.
    experts = Cost(
        options.experts * expert.parameters, options.top * expert.flops, options.top * expert.outputs
    )
    (features,) = shape.row["features"]
    return dense(features, width) + activation(width) + gate + experts + dense(width, 1)


def _mixture_inexact(options: MixtureOptions) -> str:
    if options.capacity is None and not options.balance:
        return ""
    return f"exact where each worker's rows of a batch are whole groups of {options.group} (model.group)"


MIXTURE_OF_EXPERTS = Card(
    name="mixture-of-experts",
    title="Mixture of experts: a gate chooses few of many perceptrons",
    paper="Shazeer et al. 2017, arXiv:1701.06538",
    workload="dlsys.zoo.foundation.mixture_of_experts:Mixture",
    options=MixtureOptions,
    sources=("piecewise", "csv"),
    metrics={"r2": "max", "load_cv": "min", "dropped": "min"},
    strategies=(*DATA_PARALLEL, "moe"),
    blocks=("embed", "mixture", "head"),
    inexact=_mixture_inexact,
    experts=lambda o: o.experts,
    parameters=lambda o, s: _mixture(o, s).parameters,
    flops=lambda o, s: _mixture(o, s).flops,
    activation_bytes=lambda o, s: _mixture(o, s).activation_bytes,
)
