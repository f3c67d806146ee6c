"""The card of k-means."""

from __future__ import annotations

from typing import Literal

from dlsys.spec.card import Card, Tiny
from dlsys.spec.section import Count, Section
from dlsys.spec.task import CLUSTER, Metric


class KMeansOptions(Section):
    """Clusters around means."""

    clusters: Count = 8
    """How many. As many steps choose the first means among the rows; only then do means move."""
    starts: Count = 1
    """How often to begin anew, all at the same time: k-means finds a best place near where it begins, and the
    best of several is taken."""
    update: Literal["lloyd", "mini-batch"] = "lloyd"
    """`lloyd`: a mean becomes that of its rows in the step's batch, which is k-means with `batch_size: all`.
    `mini-batch`: that of all rows that it ever got (Sculley 2010), for any batch."""


CARD = Card(
    name="k-means",
    title="k-means: each row belongs to the nearest of a few means",
    paper="Lloyd 1982, doi:10.1109/TIT.1982.1056489",
    workload="dlsys.zoo.foundation.k_means.model:KMeans",
    options=KMeansOptions,
    task=CLUSTER,
    learns={"moved": Metric(best="min", words="how far the mean moved that moved farthest")},
    traits=("solved",),
    # Sixteen rows around four means are still far from them: of made-up ones there are no clusters.
    tiny=(
        Tiny(options={"clusters": 16}, learned=1e-4),
        Tiny(options={"clusters": 4, "starts": 3, "update": "mini-batch"}, learned=7.0),
    ),
)
