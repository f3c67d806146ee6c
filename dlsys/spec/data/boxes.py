"""Sources of images with objects in them: boxes, masks, or a class for each pixel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from dlsys.spec.data.images import ImageSection
from dlsys.spec.data.section import SourceSection, SplitSection
from dlsys.spec.rows import (
    IMAGES_WITH_BOXES,
    IMAGES_WITH_INSTANCES,
    IMAGES_WITH_MASKS,
    IMAGES_WITH_PROPOSALS,
    Rows,
)
from dlsys.spec.section import Bool, Count, FileName, Fraction, NonNegative, NonNegativeInt, Text

# A file of masks holds whole numbers of 16 bits at most.
PixelValue = Annotated[int, Field(strict=True, ge=0, le=65535)]

Side = Annotated[int, Field(ge=16, le=4096)]


class AskedSection(SourceSection):
    """What sources share that know the pixels of objects."""

    GIVES: ClassVar[Mapping[str, Rows]] = {
        "wanted: boxes": IMAGES_WITH_BOXES,
        "wanted: instances": IMAGES_WITH_INSTANCES,
        "wanted: mask": IMAGES_WITH_MASKS,
    }

    wanted: Literal["boxes", "instances", "mask"] = "boxes"
    """`boxes` with their classes, `instances`: a mask for each box besides, or `mask`: a class for each
    pixel."""

    @property
    def setting(self) -> str:
        return f"wanted: {self.wanted}"


class ObjectFiles(ImageSection, SplitSection):
    """What sources of objects in image files share."""

    size: Side | Annotated[tuple[Side, Side], Field(strict=False)] = 256
    """Height and width in pixels that images get, or one number for both."""
    resize: Literal["letterbox", "stretch"] = "letterbox"
    """How an image of other proportions gets it: it is scaled until it fits, and grey fills the rest on the
    right or below; or each side is scaled for itself."""
    channels: Literal[1, 3] = 3
    """1 for grey, 3 for RGB."""
    corrupt: Literal["error", "skip"] = "skip"
    """What an unreadable or missing image does: stop, or be named in the log and left out."""

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width."""
        return self.size if isinstance(self.size, tuple) else (self.size, self.size)


class COCO(ObjectFiles, AskedSection):
    """Images with a file of annotations in COCO's JSON format: boxes, polygons, run lengths, crowds."""

    source: Literal["coco"]
    annotations: FileName
    """The JSON file with `images`, `annotations` and `categories`, of the rows to train on."""
    images: FileName
    """The folder in which `file_name` is looked for."""
    valid_annotations: FileName = ""
    """Likewise of the rows for validation; by default they are a share of those to train on."""
    valid_images: FileName = ""
    """Their folder, where it is another one."""
    test_annotations: FileName = ""
    """Likewise of the rows for the test; with `valid_annotations` and without these there is no test."""
    test_images: FileName = ""
    """Their folder, where it is another one."""

    @model_validator(mode="after")
    def _folders_belong_to_annotations(self) -> COCO:
        for part in ("valid", "test"):
            if getattr(self, f"{part}_images") and not getattr(self, f"{part}_annotations"):
                raise ValueError(f"{part}_images: is the folder of {part}_annotations, which is not said")
        return self


class VOC(ObjectFiles):
    """A folder in Pascal VOC's layout: `JPEGImages`, `Annotations` and `ImageSets/Main`."""

    GIVES: ClassVar[Mapping[str, Rows]] = {"": IMAGES_WITH_BOXES}

    source: Literal["voc"]
    path: FileName
    """The folder, such as VOCdevkit/VOC2012."""
    train_list: Text = "trainval"
    """The list in `ImageSets/Main`, without `.txt`, of images to train on."""
    valid_list: Text = ""
    """That of images for validation; by default they are a share of those to train on."""
    test_list: Text = ""
    """That of images for the test; with `valid_list` and without this one there is no test."""
    difficult: Literal["ignore", "learn"] = "ignore"
    """Objects marked difficult: not learnt and not counted, as VOC's own evaluation does; or as all
    others."""


class KITTI(ObjectFiles):
    """A folder in the layout of KITTI's object detection: `image_2` and `label_2`."""

    GIVES: ClassVar[Mapping[str, Rows]] = {"": IMAGES_WITH_BOXES}

    source: Literal["kitti"]
    path: FileName
    """The folder with both, such as `training`."""
    classes: Annotated[tuple[Text, ...], Field(min_length=1)] = ("Car", "Pedestrian", "Cyclist")
    """The types that are learnt, in their order; other objects are ground, and what lies in regions of
    `DontCare` counts for nothing."""


class Shapes(AskedSection, SplitSection):
    """Rendered shapes of any colour on a noisy ground: what each is, and where, is known to the pixel."""

    GIVES: ClassVar[Mapping[str, Rows]] = {**AskedSection.GIVES, "wanted: proposals": IMAGES_WITH_PROPOSALS}

    source: Literal["shapes"]
    wanted: Literal["boxes", "proposals", "instances", "mask"] = "boxes"  # type: ignore[assignment]
    """`boxes` with their classes, `proposals`: boxes that selective search finds besides, `instances`: a mask
    for each box besides, or `mask`: a class for each pixel."""
    proposals: Annotated[int, Field(ge=1, le=2000)] = 200
    """How many boxes an image is proposed at most, under `wanted: proposals`; they are kept in the user's
    cache."""
    rows: Count = 1000
    """How many images to render."""
    size: Annotated[int, Field(ge=16, le=1024)] = 64
    """Side of an image in pixels."""
    channels: Literal[1, 3] = 3
    """1 for grey, 3 for RGB."""
    kinds: Annotated[
        tuple[Literal["circle", "square", "triangle", "cross", "ring"], ...], Field(min_length=1)
    ] = (
        "circle",
        "square",
        "triangle",
    )
    """The classes, in their order."""
    objects: Annotated[tuple[NonNegativeInt, Count], Field(strict=False)] = (1, 4)
    """The fewest and the most shapes of an image; some find no place, and are left out."""
    sides: Annotated[tuple[Count, Count], Field(strict=False)] = (12, 28)
    """The smallest and the largest side of a shape in pixels; sizes are drawn by their logarithm, so that
    doubling a side is as likely anywhere."""
    overlap: Fraction = 0.1
    """How much of two boxes' union may be shared, at most; 0 keeps all apart."""
    touching: Bool = False
    """Whether a second shape of the same class lies against the first one, where there is room."""
    noise: NonNegative = 0.05
    """The standard deviation of the noise on each pixel of 0…1."""
    data_seed: NonNegativeInt = 0
    """Makes another data set of the same kind."""

    @model_validator(mode="after")
    def _fits(self) -> Shapes:
        for name, (least, most) in (("objects", self.objects), ("sides", self.sides)):
            if least > most:
                raise ValueError(f"{name}: {least} is more than {most}: the smaller number stands first")
        if self.sides[0] < 4 or self.sides[1] > self.size:
            raise ValueError(f"sides: from 4 pixels to the image's {self.size}")
        return self


class MaskFolder(ImageSection, SplitSection):
    """Images with an image of classes each, the mask: `images/` and `masks/` with the same file names, or
    Pascal VOC's `JPEGImages/`, `SegmentationClass/` and lists of names, `ImageSets/Segmentation/train.txt`
    and so on, which are the parts. Rows `image`, `mask`."""

    GIVES: ClassVar[Mapping[str, Rows]] = {"": IMAGES_WITH_MASKS}

    source: Literal["mask-folder"]
    path: FileName
    """The folder: VOC's is `VOCdevkit/VOC2012`."""
    size: Annotated[int, Field(ge=8, le=2048)] = 128
    """Side in pixels that images and masks are scaled to, masks by their nearest pixel."""
    resize: Literal["crop", "stretch"] = "crop"
    """How an image that is no square becomes one: its shorter side is scaled and the centre taken, or each
    side is scaled for itself."""
    channels: Literal[1, 3] = 3
    """1 for grey, 3 for RGB."""
    classes: Annotated[tuple[Text, ...], Field(min_length=2)] | None = None
    """The classes' names, the ground first. By default VOC's 21 where the folder is of its layout, else
    ground and object."""
    values: tuple[PixelValue, ...] = ()
    """What stands in a mask's pixels for each class, such as [0, 255]; by default 0, 1, 2 and so on, which is
    what VOC's palette images hold."""
    void: PixelValue | None = 255
    """What stands for a pixel that does not count; `values` may have it instead."""

    @model_validator(mode="after")
    def _values_are_told_apart(self) -> MaskFolder:
        if len(set(self.values)) < len(self.values):
            raise ValueError("values: each class has a value of its own")
        if self.values and len(self.values) != len(self.classes or ("ground", "object")):
            raise ValueError(
                f"values: there are {len(self.classes or (0, 1))} classes, got {len(self.values)} values"
            )
        return self
