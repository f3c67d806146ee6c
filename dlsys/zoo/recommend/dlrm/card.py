"""The card of DLRM."""

from __future__ import annotations

from dlsys.spec.card import Card, Cut, Tiny
from dlsys.spec.section import Count, Section
from dlsys.spec.task import CLICK_THROUGH


class DLRMOptions(Section):
    """The widths of DLRM."""

    embedding_dim: Count = 16
    """Numbers that stand for a category, and the width of the bottom perceptron's output."""
    bottom: tuple[Count, ...] = (64,)
    """Hidden widths of the perceptron on the dense numbers."""
    top: tuple[Count, ...] = (64, 32)
    """Hidden widths of the perceptron on the interactions."""


def _plan(options: DLRMOptions) -> dict[str, Cut]:
    """Tables by the numbers of a category, perceptrons by pairs of layers; a last odd one is whole."""
    plan = {"tables.*": Cut("gather", options.embedding_dim)}
    for perceptron_name, hidden in (("bottom", options.bottom), ("top", options.top)):
        for layer in range(0, len(hidden), 2):
            # A ReLU stands behind each affine layer.
            plan[f"{perceptron_name}.{2 * layer}"] = Cut("column", hidden[layer])
            plan[f"{perceptron_name}.{2 * layer + 2}"] = Cut("row", hidden[layer])
    return plan


CARD = Card(
    name="dlrm",
    title="DLRM: embeddings, pairwise products, two perceptrons",
    paper="Naumov et al. 2019, arXiv:1906.00091",
    workload="dlsys.zoo.recommend.dlrm.model:DLRM",
    options=DLRMOptions,
    task=CLICK_THROUGH,
    tensor_plan=_plan,
    tiny=(
        Tiny(options={"embedding_dim": 4, "bottom": [8], "top": [16, 8]}),
        Tiny(options={"embedding_dim": 3, "bottom": [], "top": []}),
    ),
)
