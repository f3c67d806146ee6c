"""What a workload is for: the rows it takes, and what is measured of it. Without torch.

The code that all workloads of a task share is in `dlsys.zoo.tasks`, a file for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from dlsys.spec.rows import (
    CLICKS,
    CLIPS_WITH_CLASSES,
    COMPARISONS,
    FEATURES_WITH_CLASSES,
    FEATURES_WITH_TARGETS,
    IMAGES_WITH_BOXES,
    IMAGES_WITH_CLASSES,
    IMAGES_WITH_INSTANCES,
    IMAGES_WITH_MASKS,
    POINTS,
    SCANS_WITH_MASKS,
    TEXT,
    VOLUMES_WITH_MASKS,
    Rows,
)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure of a split.

    Attributes:
        best: whether the largest or the smallest value is the best.
        words: what it says.
        always: whether every split has it; otherwise it is left out where rows have nothing of the kind.
    """

    best: Literal["max", "min"]
    words: str
    always: bool = True


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a workload is for.

    Attributes:
        name: one word.
        takes: rows that it can learn from; a workload may take some of them only.
        metrics: what is measured on validation and test data, besides `loss`.
        of_fields: what is measured besides where rows have a further field, by the field.
    """

    name: str
    takes: tuple[Rows, ...]
    metrics: Mapping[str, Metric]
    of_fields: Mapping[str, Mapping[str, Metric]] = field(default_factory=dict)


CLASSIFY = Task(
    name="classify",
    takes=(IMAGES_WITH_CLASSES, FEATURES_WITH_CLASSES, CLIPS_WITH_CLASSES),
    metrics={"accuracy": Metric(best="max", words="the share of rows whose class is the most likely one")},
    of_fields={
        "texture": {
            "shape_bias": Metric(
                best="max",
                words="the share of rows taken for their shape's class among those taken for their shape's "
                "or their texture's, where the two differ",
            )
        }
    },
)
# The twelve figures of COCO's evaluation, as pycocotools computes them. Sizes are areas in the original
# image's pixels: small below 32², large from 96² on.
_COCO = {
    "map": ("the mean of map50 … map95, in steps of 5", ""),
    "map50": ("average precision, where half of the union is overlap enough; the mean over classes", ""),
    "map75": ("average precision, where three quarters of the union must be overlap", ""),
    "map_small": ("map of small objects alone", "size"),
    "map_medium": ("map of objects of medium size alone", "size"),
    "map_large": ("map of large objects alone", "size"),
    "recall1": ("the share of objects found by the best detection of a class and image", ""),
    "recall10": ("the share of objects found by the 10 best detections of a class and image", ""),
    "recall100": ("the share of objects found by the 100 best detections of a class and image", ""),
    "recall_small": ("recall100 of small objects", "size"),
    "recall_medium": ("recall100 of objects of medium size", "size"),
    "recall_large": ("recall100 of large objects", "size"),
}
_OF_BOXES = {name: Metric(best="max", words=words, always=not of) for name, (words, of) in _COCO.items()}
DETECT = Task(name="detect", takes=(IMAGES_WITH_BOXES,), metrics=_OF_BOXES)
# What detectors of two stages measure besides.
PROPOSALS = {
    "proposal_recall": Metric(
        best="max", words="the share of objects whose union with a proposed region is half shared at least"
    )
}
LOCATE = Task(
    name="locate",
    takes=(IMAGES_WITH_BOXES,),
    metrics={"iou": Metric(best="max", words="overlap by union of the first object's box and the one said")},
)
DETECT_INSTANCES = Task(
    name="detect-instances",
    takes=(IMAGES_WITH_INSTANCES,),
    metrics={
        **_OF_BOXES,
        **{
            f"mask_{name}": Metric(best="max", words=f"{metric.words}; of masks", always=metric.always)
            for name, metric in _OF_BOXES.items()
        },
    },
)
SEGMENT = Task(
    name="segment",
    takes=(IMAGES_WITH_MASKS, VOLUMES_WITH_MASKS, SCANS_WITH_MASKS),
    metrics={
        "pixel_accuracy": Metric(best="max", words="the share of pixels whose class is the most likely one"),
        "miou": Metric(
            best="max",
            words="overlap by union of a class's pixels; the mean over classes that are or are found",
        ),
        "worst_iou": Metric(best="max", words="the least overlap by union of those classes"),
        "dice": Metric(
            best="max",
            words="Dice's coefficient of those classes but the first, the ground; the mean over them",
            always=False,
        ),
    },
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
