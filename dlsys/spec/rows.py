"""What stands in a row of data: what a source gives, what a task takes, and whether the two fit.

No torch: a row is told by the names of its fields, by what their numbers are, and by a `Shape`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a data source hands out, as a workload needs to know it to build its model.

    Attributes:
        row: the shape of one row of each field, without the batch dim: `{"image": (1, 8, 8)}`. Of what a row
            has any number of (`boxes`), the most of any row stands there; a batch has as many as its rows
            need.
        classes: the number of classes of `label`, `labels` or `mask`; 0 where there is none.
        cardinalities: values of each categorical column, in order.
        vocabulary: the tokens of a text, in the order of their ids.
        planted: what a generator hid in its rows, for a workload to measure what was found of it.
        limbs: pairs of the joints of `keypoints` that belong together.
    """

    row: Mapping[str, tuple[int, ...]]
    classes: int = 0
    cardinalities: tuple[int, ...] = ()
    vocabulary: tuple[str, ...] = ()
    planted: Mapping[str, float] = field(default_factory=dict)
    limbs: tuple[tuple[int, int], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The same as JSON, which `of_json` reads."""
        return {
            "row": {name: list(map(int, sizes)) for name, sizes in self.row.items()},
            "classes": int(self.classes),
            "cardinalities": list(map(int, self.cardinalities)),
            "vocabulary": list(self.vocabulary),
            "planted": {name: float(value) for name, value in self.planted.items()},
            **({"limbs": [list(limb) for limb in self.limbs]} if self.limbs else {}),
        }

    @classmethod
    def of_json(cls, plain: Mapping[str, Any]) -> Shape:
        """Of what `to_json` gave."""
        return cls(
            row={name: tuple(sizes) for name, sizes in plain["row"].items()},
            classes=plain["classes"],
            cardinalities=tuple(plain["cardinalities"]),
            vocabulary=tuple(plain["vocabulary"]),
            planted=plain["planted"],
            limbs=tuple((start, end) for start, end in plain.get("limbs", ())),
        )


class Values(Enum):
    """What the numbers of a field are."""

    UNIT = "float32 from 0 to 1"
    NUMBER = "float32 around 0, of a deviation near 1"
    BIT = "float32, 0 or 1"
    CLASS = "int64 below Shape.classes"
    TOKEN = "int64 below the length of Shape.vocabulary"
    NEXT = "int64: each token's next one"
    CATEGORY = "int64 below Shape.cardinalities, column by column"
    MASK = "int64: 1 where a token stands, 0 where a row is padded"
    RING = "float32: points of equal Gaussians on the circle that Shape.planted tells"
    BOX = "float32: left, top, right, bottom in the image's pixels; zeros where a row has fewer than others"
    PROPOSAL = "float32: boxes that may hold an object, as BOX is; zeros where a row has fewer than others"
    BOX_CLASS = "int64 below Shape.classes; -1 where a row has fewer boxes than others"
    BOX_MASK = "bool: the pixels of each box's object; none where a row has fewer boxes than others"
    SCAN = (
        "float32: x, y, z in metres, strength in 0…1 and range of each return; zeros where nothing returned"
    )
    JOINT = (
        "float32: x, y in the image's pixels and 2 for a joint that is seen, 1 for one that is hidden, three "
        "zeros for one that nobody has marked, and for the joints of people whom other rows have more of"
    )
    MIRRORED = "int64: which joint each is in a mirror, the same in all rows"
    ANGLE = "float32: radians"
    PIXEL_CLASS = "int64 below Shape.classes; -1 where a pixel does not count"


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A kind of rows.

    Attributes:
        words: what messages call it.
        fields: what stands in each row.
        examples: shapes that such rows may have, small ones: every workload that takes the kind is
            tested on them.
    """

    words: str
    fields: Mapping[str, Values]
    examples: tuple[Shape, ...] = field(repr=False)

    def hold(self, wanted: Rows) -> bool:
        """Whether a task that takes `wanted` finds all of it in these."""
        return wanted.fields.items() <= self.fields.items()


IMAGES = Rows(
    words="images",
    fields={"image": Values.UNIT},
    examples=(Shape(row={"image": (1, 8, 8)}), Shape(row={"image": (3, 16, 13)})),
)
IMAGES_WITH_CLASSES = Rows(
    words="images with classes",
    fields={"image": Values.UNIT, "label": Values.CLASS},
    examples=(
        Shape(row={"image": (1, 8, 8), "label": ()}, classes=5),
        Shape(row={"image": (1, 28, 28), "label": ()}, classes=5),
        Shape(row={"image": (3, 32, 13), "label": ()}, classes=5),
    ),
)
IMAGES_WITH_BOXES = Rows(
    words="images with boxes",
    fields={"image": Values.UNIT, "boxes": Values.BOX, "labels": Values.BOX_CLASS},
    examples=(
        Shape(row={"image": (3, 64, 64), "boxes": (3, 4), "labels": (3,)}, classes=3),
        Shape(row={"image": (1, 64, 96), "boxes": (2, 4), "labels": (2,)}, classes=1),
    ),
)
IMAGES_WITH_PROPOSALS = Rows(
    words="images with boxes, and others that may hold an object",
    fields={**IMAGES_WITH_BOXES.fields, "proposals": Values.PROPOSAL},
    examples=(
        Shape(
            row={"image": (3, 64, 64), "boxes": (3, 4), "labels": (3,), "proposals": (20, 4)},
            classes=3,
        ),
        Shape(
            row={"image": (1, 64, 96), "boxes": (2, 4), "labels": (2,), "proposals": (9, 4)},
            classes=1,
        ),
    ),
)
IMAGES_WITH_INSTANCES = Rows(
    words="images with boxes and their objects' masks",
    fields={**IMAGES_WITH_BOXES.fields, "masks": Values.BOX_MASK},
    examples=(
        Shape(
            row={"image": (3, 64, 64), "boxes": (3, 4), "labels": (3,), "masks": (3, 64, 64)},
            classes=3,
        ),
    ),
)
IMAGES_WITH_MASKS = Rows(
    words="images with a class for each pixel",
    fields={"image": Values.UNIT, "mask": Values.PIXEL_CLASS},
    examples=(
        Shape(row={"image": (3, 32, 32), "mask": (32, 32)}, classes=4),
        Shape(row={"image": (1, 32, 48), "mask": (32, 48)}, classes=2),
    ),
)
_LIMBS = ((0, 1), (1, 2), (1, 3))
IMAGES_WITH_POSES = Rows(
    words="images with people's joints",
    fields={"image": Values.UNIT, "keypoints": Values.JOINT, "mirror": Values.MIRRORED},
    examples=(
        Shape(row={"image": (3, 32, 32), "keypoints": (2, 4, 3), "mirror": (4,)}, limbs=_LIMBS),
        Shape(row={"image": (1, 32, 48), "keypoints": (3, 4, 3), "mirror": (4,)}, limbs=_LIMBS),
    ),
)
CLIPS_WITH_ANGLES = Rows(
    words="clips with angles",
    fields={"clip": Values.UNIT, "angles": Values.ANGLE},
    examples=(Shape(row={"clip": (5, 1, 16, 16), "angles": (5, 3)}),),
)
VOLUMES_WITH_MASKS = Rows(
    words="volumes with a class for each voxel",
    fields={"volume": Values.NUMBER, "mask": Values.PIXEL_CLASS},
    examples=(Shape(row={"volume": (1, 8, 8, 12), "mask": (8, 8, 12)}, classes=2),),
)
SCANS_WITH_MASKS = Rows(
    words="laser scans with a class for each point",
    fields={"scan": Values.SCAN, "mask": Values.PIXEL_CLASS},
    examples=(Shape(row={"scan": (5, 8, 32), "mask": (8, 32)}, classes=3),),
)
IMAGES_OF_SHAPES_AND_TEXTURES = Rows(
    words="images with classes of shapes and textures",
    fields={"image": Values.UNIT, "label": Values.CLASS, "texture": Values.CLASS},
    examples=(Shape(row={"image": (1, 16, 16), "label": (), "texture": ()}, classes=4),),
)
CLIPS_WITH_CLASSES = Rows(
    words="clips with classes",
    # Frames first, in the order in which they were taken: (frames, channels, height, width).
    fields={"clip": Values.UNIT, "label": Values.CLASS},
    examples=(
        Shape(row={"clip": (4, 1, 16, 16), "label": ()}, classes=4),
        Shape(row={"clip": (3, 3, 16, 21), "label": ()}, classes=3),
    ),
)
COMPARISONS = Rows(
    words="images to be compared",
    # A row's first image is held against its others; `same` tells which of these are of its class.
    fields={"images": Values.UNIT, "same": Values.BIT},
    examples=(
        Shape(row={"images": (3, 1, 8, 8), "same": (2,)}),
        Shape(row={"images": (6, 3, 16, 13), "same": (5,)}),
    ),
)
FEATURES = Rows(
    words="numbers",
    fields={"features": Values.NUMBER},
    examples=(Shape(row={"features": (7,)}),),
)
FEATURES_WITH_CLASSES = Rows(
    words="numbers with classes",
    fields={"features": Values.NUMBER, "label": Values.CLASS},
    examples=(Shape(row={"features": (7,), "label": ()}, classes=3),),
)
FEATURES_WITH_TARGETS = Rows(
    words="numbers with a number to predict",
    fields={"features": Values.NUMBER, "target": Values.NUMBER},
    examples=(Shape(row={"features": (5,), "target": ()}),),
)
TEXT = Rows(
    words="text",
    fields={"tokens": Values.TOKEN, "targets": Values.NEXT},
    examples=(Shape(row={"tokens": (8,), "targets": (8,)}, vocabulary=tuple("\nabcdefghij")),),
)
TEXTS_WITH_CLASSES = Rows(
    words="texts with classes",
    fields={"input_ids": Values.TOKEN, "attention_mask": Values.MASK, "label": Values.CLASS},
    examples=(
        Shape(
            row={"input_ids": (8,), "attention_mask": (8,), "label": ()},
            classes=3,
            vocabulary=("[PAD]", "[UNK]", *"abcdefghij"),
        ),
    ),
)
CLICKS = Rows(
    words="clicks",
    fields={"dense": Values.NUMBER, "sparse": Values.CATEGORY, "label": Values.BIT},
    examples=(
        Shape(
            row={"dense": (13,), "sparse": (26,), "label": ()},
            classes=2,
            cardinalities=tuple(range(2, 28)),
        ),
    ),
)
POINTS = Rows(
    words="points of a ring",
    fields={"point": Values.RING},
    examples=(Shape(row={"point": (2,)}, planted={"modes": 8, "radius": 2.0, "sigma": 0.1}),),
)
