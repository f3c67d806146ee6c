"""`data:` — the sources and their typed options, one file a kind of rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import Discriminator, Field, Tag

from dlsys.spec.data.boxes import COCO, KITTI, VOC, MaskFolder, Shapes
from dlsys.spec.data.clicks import SyntheticCTR
from dlsys.spec.data.clips import FrameFolders, MovingShapes
from dlsys.spec.data.comparisons import Comparisons
from dlsys.spec.data.features import BreastCancer, Piecewise
from dlsys.spec.data.images import (
    CIFARFiles,
    Digits,
    IDXFiles,
    ImageFolder,
    ShapesAndTextures,
    SyntheticFaces,
    Textures,
)
from dlsys.spec.data.own import OWN, OwnSource, tag_of
from dlsys.spec.data.points import GaussianRing
from dlsys.spec.data.scans import Scans, SemanticKITTI
from dlsys.spec.data.section import SourceSection
from dlsys.spec.data.tables import ArrowFile, CSVFile, JSONLines, ParquetFile
from dlsys.spec.data.text import LabelledTexts, Pydoc, TextFile
from dlsys.spec.data.volumes import Ellipsoids, Nifti


def _told_apart(schema: dict[str, Any]) -> None:
    """Says in the JSON schema what the tag chooses, as pydantic does it where a field alone decides."""
    mapping = {tag: branch["$ref"] for tag, branch in zip([*SECTIONS, OWN], schema["oneOf"], strict=True)}
    schema["discriminator"] = {"propertyName": "source", "mapping": mapping}


Source = Annotated[
    Annotated[Digits, Tag("digits")]
    | Annotated[BreastCancer, Tag("breast_cancer")]
    | Annotated[Pydoc, Tag("pydoc")]
    | Annotated[TextFile, Tag("text")]
    | Annotated[LabelledTexts, Tag("texts")]
    | Annotated[CSVFile, Tag("csv")]
    | Annotated[ParquetFile, Tag("parquet")]
    | Annotated[ArrowFile, Tag("arrow")]
    | Annotated[JSONLines, Tag("jsonl")]
    | Annotated[IDXFiles, Tag("idx")]
    | Annotated[CIFARFiles, Tag("cifar")]
    | Annotated[ImageFolder, Tag("image-folder")]
    | Annotated[COCO, Tag("coco")]
    | Annotated[VOC, Tag("voc")]
    | Annotated[KITTI, Tag("kitti")]
    | Annotated[Shapes, Tag("shapes")]
    | Annotated[Textures, Tag("textures")]
    | Annotated[ShapesAndTextures, Tag("shapes-and-textures")]
    | Annotated[FrameFolders, Tag("frame-folders")]
    | Annotated[MovingShapes, Tag("moving-shapes")]
    | Annotated[MaskFolder, Tag("mask-folder")]
    | Annotated[Ellipsoids, Tag("ellipsoids")]
    | Annotated[Nifti, Tag("nifti")]
    | Annotated[Scans, Tag("scans")]
    | Annotated[SemanticKITTI, Tag("semantic-kitti")]
    | Annotated[SyntheticFaces, Tag("synthetic-faces")]
    | Annotated[Comparisons, Tag("comparisons")]
    | Annotated[SyntheticCTR, Tag("synthetic-ctr")]
    | Annotated[GaussianRing, Tag("gaussian-ring")]
    | Annotated[Piecewise, Tag("piecewise")]
    | Annotated[OwnSource, Tag(OWN)],
    Discriminator(tag_of),
    Field(json_schema_extra=_told_apart),
]

#: The sections of the sources that dlsys has itself, by name.
SECTIONS: Mapping[str, type[SourceSection]] = {
    tag.tag: section
    for section, tag in (get_args(branch) for branch in get_args(get_args(Source)[0]))
    if section is not OwnSource
}

__all__ = [
    "COCO",
    "KITTI",
    "SECTIONS",
    "VOC",
    "ArrowFile",
    "BreastCancer",
    "CIFARFiles",
    "CSVFile",
    "Comparisons",
    "Digits",
    "Ellipsoids",
    "FrameFolders",
    "GaussianRing",
    "IDXFiles",
    "ImageFolder",
    "JSONLines",
    "LabelledTexts",
    "MaskFolder",
    "MovingShapes",
    "Nifti",
    "OwnSource",
    "ParquetFile",
    "Piecewise",
    "Pydoc",
    "Scans",
    "SemanticKITTI",
    "Shapes",
    "ShapesAndTextures",
    "Source",
    "SyntheticCTR",
    "SyntheticFaces",
    "TextFile",
    "Textures",
]
