"""Cards of the recommenders."""

from __future__ import annotations

from dlsys.spec.card import DATA_PARALLEL, Card, Cut, Shape
from dlsys.spec.section import Count, Section
from dlsys.zoo.cost import Cost, activation, perceptron


class DLRMOptions(Section):
    """The widths of DLRM."""

    embedding_dim: Count = 16
    """Numbers that stand for a category, and the width of the bottom perceptron's output."""
    bottom: tuple[Count, ...] = (64,)
    """Hidden widths of the perceptron on the dense numbers."""
    top: tuple[Count, ...] = (64, 32)
    """Hidden widths of the perceptron on the interactions."""


def dlrm_widths(options: DLRMOptions, shape: Shape) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Widths of the bottom and of the top perceptron, inputs and outputs among them."""
    vectors = len(shape.cardinalities) + 1
    bottom = (shape.row["dense"][0], *options.bottom, options.embedding_dim)
    return bottom, (options.embedding_dim + vectors * (vectors - 1) // 2, *options.top, 1)


def _dlrm(options: DLRMOptions, shape: Shape) -> Cost:
    bottom, top = dlrm_widths(options, shape)
    tables, dim = len(shape.cardinalities), options.embedding_dim
    embeddings = Cost(sum(shape.cardinalities) * dim, 0, tables * dim)
    # The product of all vectors with all of them; its upper half is thrown away.
    interaction = Cost(flops=2 * (tables + 1) ** 2 * dim)
    return perceptron(bottom) + activation(dim) + embeddings + interaction + perceptron(top)


def _dlrm_plan(options: DLRMOptions) -> dict[str, Cut]:
    """Tables by the numbers of a category, perceptrons by pairs of layers; a last odd one is whole."""
    plan = {"tables.*": Cut("gather", options.embedding_dim)}
    for perceptron_name, hidden in (("bottom", options.bottom), ("top", options.top)):
        for layer in range(0, len(hidden), 2):
            # A ReLU stands behind each affine layer.
            plan[f"{perceptron_name}.{2 * layer}"] = Cut("column", hidden[layer])
            plan[f"{perceptron_name}.{2 * layer + 2}"] = Cut("row", hidden[layer])
    return plan


DLRM = Card(
    name="dlrm",
    title="DLRM: embeddings, pairwise products, two perceptrons",
    paper="Naumov et al. 2019, arXiv:1906.00091",
    workload="dlsys.zoo.recommend.dlrm:DLRM",
    options=DLRMOptions,
    sources=("synthetic-ctr",),
    metrics={"auc": "max"},
    strategies=(*DATA_PARALLEL, "tensor"),
    tensor_plan=_dlrm_plan,
    parameters=lambda o, s: _dlrm(o, s).parameters,
    flops=lambda o, s: _dlrm(o, s).flops,
    activation_bytes=lambda o, s: _dlrm(o, s).activation_bytes,
)
