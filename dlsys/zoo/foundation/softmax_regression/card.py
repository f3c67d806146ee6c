"""The card of softmax regression."""

from __future__ import annotations

from dlsys.spec.card import Card, Cut, Tiny
from dlsys.spec.section import Section
from dlsys.spec.task import CLASSIFY


class SoftmaxRegressionOptions(Section):
    """Softmax regression has no options: the data decides its size."""


CARD = Card(
    name="softmax-regression",
    title="Softmax regression: one affine layer",
    paper="Cox 1958, The Regression Analysis of Binary Sequences, JRSS B 20(2)",
    workload="dlsys.zoo.foundation.softmax_regression.model:SoftmaxRegression",
    options=SoftmaxRegressionOptions,
    task=CLASSIFY,
    tensor_plan=lambda _: {"1": Cut("gather")},
    # Seven numbers do not tell three classes of 16 rows apart.
    tiny=(Tiny(learned=0.9),),
)
