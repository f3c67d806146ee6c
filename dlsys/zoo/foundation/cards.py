"""Cards of the models that everything starts from."""

from __future__ import annotations

import math

from dlsys.spec.section import Section
from dlsys.zoo.card import DATA_PARALLEL, Card, Cut, Shape
from dlsys.zoo.cost import Cost, dense


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
