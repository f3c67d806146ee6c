"""The card of a mixture of experts."""

from __future__ import annotations

from pydantic import ValidationInfo, field_validator

from dlsys.spec.card import Card, Tiny
from dlsys.spec.section import Count, NonNegative, Positive, Section
from dlsys.spec.task import REGRESS, Metric


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


def _inexact(options: MixtureOptions) -> str:
    if options.capacity is None and not options.balance:
        return ""
    return f"exact where each worker's rows of a batch are whole groups of {options.group} (model.group)"


CARD = Card(
    name="mixture-of-experts",
    title="Mixture of experts: a gate chooses few of many perceptrons",
    paper="Shazeer et al. 2017, arXiv:1701.06538",
    workload="dlsys.zoo.foundation.mixture_of_experts.model:Mixture",
    options=MixtureOptions,
    task=REGRESS,
    extra={
        "load_cv": Metric(best="min", words="the experts' loads: their deviation in means"),
        "dropped": Metric(best="min", words="the share of choices that found no room"),
    },
    inexact=_inexact,
    blocks=("embed", "mixture", "head"),
    experts=lambda options: options.experts,
    tiny=(Tiny(options={"balance": 0.0}), Tiny(options={"experts": 5, "top": 1, "width": 48})),
)
