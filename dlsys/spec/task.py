"""What a workload is for: the rows it takes, and what is measured of it. Without torch.

The code that all workloads of a task share is in `dlsys.zoo.tasks`, a file for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from dlsys.spec.rows import (
    CLICKS,
    COMPARISONS,
    FEATURES_WITH_CLASSES,
    FEATURES_WITH_TARGETS,
    IMAGES_WITH_CLASSES,
    POINTS,
    TEXT,
    Rows,
)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure of a split.

    Attributes:
        best: whether the largest or the smallest value is the best.
        words: what it says.
    """

    best: Literal["max", "min"]
    words: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a workload is for.

    Attributes:
        name: one word.
        takes: rows that it can learn from; a workload may take some of them only.
        metrics: what is measured on validation and test data, besides `loss`.
    """

    name: str
    takes: tuple[Rows, ...]
    metrics: Mapping[str, Metric]


CLASSIFY = Task(
    name="classify",
    takes=(IMAGES_WITH_CLASSES, FEATURES_WITH_CLASSES),
    metrics={"accuracy": Metric(best="max", words="the share of rows whose class is the most likely one")},
)
REGRESS = Task(
    name="regress",
    takes=(FEATURES_WITH_TARGETS,),
    metrics={"r2": Metric(best="max", words="the share of the targets' variance that is explained")},
)
NEXT_TOKEN = Task(
    name="next-token",
    takes=(TEXT,),
    metrics={"bits_per_char": Metric(best="min", words="what a character takes to write down, in bits")},
)
CLICK_THROUGH = Task(
    name="click-through",
    takes=(CLICKS,),
    metrics={"auc": Metric(best="max", words="how often a click is ranked above what is none")},
)
VERIFY = Task(
    name="verify",
    takes=(COMPARISONS,),
    metrics={
        "auc": Metric(best="max", words="how often two of a class are nearer than two of different ones"),
        "equal_error_rate": Metric(
            best="min", words="the share told wrongly where as many are accepted as refused wrongly"
        ),
        "tar_at_far_0.01": Metric(
            best="max", words="the share of equal pairs accepted where 1 in 100 different ones is"
        ),
        "one_shot": Metric(
            best="max", words="the share of rows whose first image is nearest to the other of its class"
        ),
    },
)
GENERATE_POINTS = Task(
    name="generate-points",
    takes=(POINTS,),
    metrics={
        "modes": Metric(best="max", words="Gaussians that at least a quarter of their share of samples hits"),
        "within_3_sigma": Metric(best="max", words="the share of samples within 3 sigma of a Gaussian"),
    },
)
