"""The card of naive Bayes."""

from __future__ import annotations

from typing import Literal

from dlsys.spec.card import Card, Tiny
from dlsys.spec.section import NonNegative, Number, Positive, Section
from dlsys.spec.task import CLASSIFY


class NaiveBayesOptions(Section):
    """What each number of a row is taken for, given its class. Rows add up over all steps: one epoch, of
    batches of any size, is the whole of it."""

    kind: Literal["gaussian", "bernoulli", "multinomial"] = "gaussian"
    """`gaussian`: normal, of a mean and a variance of its own. `bernoulli`: whether it is above `threshold`.
    `multinomial`: how often something occurs, which is never negative."""
    smoothing: NonNegative = 1.0
    """Of `bernoulli` and `multinomial`: how often everything is taken to have occurred besides."""
    threshold: Number = 0.5
    """Of `bernoulli`: what is more counts as 1."""
    least_variance: Positive = 1e-9
    """Of `gaussian`: what is added to each variance, in units of the largest variance of any number."""


CARD = Card(
    name="naive-bayes",
    title="Naive Bayes: Bayes' theorem on numbers that are independent within a class",
    paper="Maron 1961, doi:10.1145/321075.321084",
    workload="dlsys.zoo.foundation.naive_bayes.model:NaiveBayes",
    options=NaiveBayesOptions,
    task=CLASSIFY,
    traits=("solved",),
    tiny=(
        Tiny(options={"kind": "bernoulli"}, learned=0.9),
        Tiny(options={"kind": "multinomial"}, learned=0.9),
        # Few rows of made-up images tell their classes apart for certain, and often wrongly.
        Tiny(options={"kind": "gaussian", "least_variance": 1.0}, learned=0.9),
    ),
)
