"""The card of image architectures that timm and torchvision build."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import Field, field_validator

from dlsys.spec.card import Card, Tiny
from dlsys.spec.libraries import architecture
from dlsys.spec.rows import IMAGES_WITH_CLASSES, Shape
from dlsys.spec.section import Count, Section, Text, show
from dlsys.spec.task import CLASSIFY


class LibraryOptions(Section):
    """Which architecture, and of what size."""

    architecture: Text = "timm/resnet18"
    """`timm/…` or `torchvision/…`: `dlsys zoo list --library timm` tells the names."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """What the library's function is called with, such as `{drop_rate: 0.1}`; those of a preset stay where
    these say nothing else. Channels (of timm) and classes are the rows'."""
    size: Count | None = None
    """Height and width that images are first brought to, bilinearly; none leaves them as they are."""

    @field_validator("architecture")
    @classmethod
    def _is_an_image_librarys(cls, name: str) -> str:
        of = architecture(name)
        if of is None or of.library not in ("timm", "torchvision") or not of.name:
            raise ValueError(f"must be timm/… or torchvision/…, got {show(name)}")
        return name


class _Published(NamedTuple):
    """A network as it was published; images are brought to the side that it was trained on.

    Attributes:
        architecture: `library/name`.
        parameters: trainable ones with 1000 classes.
        paper: where it comes from.
        size: of images.
    """

    architecture: str
    parameters: int
    paper: str
    size: int = 224


class _Small(NamedTuple):
    """A network for small images: options of the card."""

    architecture: str
    arguments: dict[str, Any]
    size: int = 32


# Counts are those of torchvision's tables of weights (`meta["num_params"]`), where it has the network. Of the
# others, Xception's is of its paper's table 3; SE-ResNet-50 has the 2.5 million more than ResNet-50 that its
# paper tells, and MobileNet v1 the paper's 4.2 million. GoogLeNet is without its auxiliary classifiers, which
# torchvision's table leaves out.
_PUBLISHED = {
    "densenet-121": _Published("timm/densenet121", 7_978_856, "Huang et al. 2017, arXiv:1608.06993"),
    "efficientnet-b0": _Published("timm/efficientnet_b0", 5_288_548, "Tan and Le 2019, arXiv:1905.11946"),
    # torchvision's: with batch norm, and 3 × 3 where the paper has 5 × 5 (pytorch/vision issue 906).
    "googlenet": _Published("torchvision/googlenet", 6_624_904, "Szegedy et al. 2015, arXiv:1409.4842"),
    "mobilenet-v1": _Published("timm/mobilenetv1_100", 4_231_976, "Howard et al. 2017, arXiv:1704.04861"),
    "mobilenet-v2": _Published(
        "torchvision/mobilenet_v2", 3_504_872, "Sandler et al. 2018, arXiv:1801.04381"
    ),
    "mobilenet-v3": _Published(
        "timm/mobilenetv3_large_100", 5_483_032, "Howard et al. 2019, arXiv:1905.02244"
    ),
    "resnet-34": _Published("timm/resnet34", 21_797_672, "He et al. 2015, arXiv:1512.03385"),
    "resnet-50": _Published("timm/resnet50", 25_557_032, "He et al. 2015, arXiv:1512.03385"),
    "resnet-101": _Published("timm/resnet101", 44_549_160, "He et al. 2015, arXiv:1512.03385"),
    "resnet-152": _Published("timm/resnet152", 60_192_808, "He et al. 2015, arXiv:1512.03385"),
    "resnext-50": _Published("timm/resnext50_32x4d", 25_028_904, "Xie et al. 2017, arXiv:1611.05431"),
    "se-resnet-50": _Published("timm/seresnet50", 28_088_024, "Hu et al. 2018, arXiv:1709.01507"),
    "shufflenet-v2": _Published(
        "torchvision/shufflenet_v2_x1_0", 2_278_604, "Ma et al. 2018, arXiv:1807.11164"
    ),
    "squeezenet-1.0": _Published(
        "torchvision/squeezenet1_0", 1_248_424, "Iandola et al. 2016, arXiv:1602.07360"
    ),
    "vit-b-16": _Published(
        "timm/vit_base_patch16_224", 86_567_656, "Dosovitskiy et al. 2021, arXiv:2010.11929"
    ),
    "xception": _Published("timm/legacy_xception", 22_855_952, "Chollet 2017, arXiv:1610.02357", 299),
}

_ALIGNED = [
    {"in_chs": 64, "out_chs": 64, "stride": 2},
    {"in_chs": 64, "out_chs": 128, "stride": 2},
    {"in_chs": 128, "out_chs": 128, "stride": 1},
    {"in_chs": 128, "out_chs": [128, 192, 256], "stride": 1, "no_skip": True, "start_with_relu": False},
]
# For small images: fewer blocks or channels, by arguments of the library's own or by a smaller one of its
# architectures. Where it has neither, the whole network sees small images.
_SMALL = {
    "densenet-small": _Small("timm/densenet121", {"growth_rate": 12, "block_config": [2, 4, 4]}),
    # B0's blocks cannot be said; timm has these five for its tests, two of them EfficientNetV2's fused ones.
    "efficientnet-small": _Small("timm/test_efficientnet", {}),
    "googlenet-small": _Small("torchvision/googlenet", {}),
    "mobilenet-v1-small": _Small("timm/mobilenetv1_100", {"depth_multiplier": 0.3}),
    # t, c, n and s of its paper's table 2.
    "mobilenet-v2-small": _Small(
        "torchvision/mobilenet_v2",
        {"inverted_residual_setting": [[1, 16, 1, 1], [6, 24, 1, 1], [6, 32, 2, 2], [6, 64, 2, 2]]},
    ),
    "mobilenet-v3-small": _Small("timm/mobilenetv3_small_050", {}),
    "resnet-34-small": _Small("timm/resnet34", {"layers": [1, 1, 1, 1], "channels": [32, 64, 128, 256]}),
    "resnet-50-small": _Small("timm/resnet50", {"layers": [1, 1, 1, 1], "channels": [16, 32, 64, 128]}),
    "resnet-101-small": _Small("timm/resnet101", {"layers": [1, 1, 2, 1], "channels": [16, 32, 64, 128]}),
    "resnet-152-small": _Small("timm/resnet152", {"layers": [1, 2, 3, 1], "channels": [16, 32, 64, 128]}),
    "resnext-small": _Small("timm/resnext50_32x4d", {"layers": [1, 1, 1, 1], "cardinality": 8}),
    "senet-small": _Small("timm/seresnet50", {"layers": [1, 1, 1, 1], "channels": [16, 32, 64, 128]}),
    "shufflenet-small": _Small("torchvision/shufflenet_v2_x0_5", {}),
    "squeezenet-small": _Small("torchvision/squeezenet1_0", {}),
    "vit-small": _Small(
        "timm/vit_base_patch16_224",
        {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 4, "num_heads": 4},
    ),
    # Its blocks can be said in the Aligned Xception alone (Chen et al. 2018, arXiv:1802.02611).
    "xception-small": _Small("timm/xception41", {"block_cfg": _ALIGNED}),
}

# Of the architectures above, those that have no batch norm.
_EXACT = ("timm/vit_base_patch16_224", "torchvision/squeezenet1_0")


def _inexact(options: LibraryOptions) -> str:
    if options.architecture in _EXACT:
        return ""
    return "batch norm, which most of these architectures have, sees only its own worker's rows"


def _library(options: LibraryOptions) -> str:
    return options.architecture.partition("/")[0]


CARD = Card(
    name="vision-library",
    title="An image architecture of timm or torchvision",
    paper="each architecture's own, which its library tells",
    workload="dlsys.zoo.vision.library.model:Library",
    options=LibraryOptions,
    task=CLASSIFY,
    takes=(IMAGES_WITH_CLASSES,),
    presets={
        **{name: {"architecture": of.architecture, "size": of.size} for name, of in _PUBLISHED.items()},
        **{name: of._asdict() for name, of in _SMALL.items()},
    },
    published={name: of.parameters for name, of in _PUBLISHED.items()},
    papers={name: of.paper for name, of in _PUBLISHED.items()},
    at=Shape(row={"image": (3, 224, 224), "label": ()}, classes=1000),
    traits=("dropout", "running-statistics"),
    inexact=_inexact,
    library=_library,
    tiny=(
        Tiny(
            options={
                "architecture": "timm/densenet121",
                "arguments": {"growth_rate": 4, "block_config": [1, 1]},
                "size": 32,
            }
        ),
        Tiny(
            options={
                "architecture": "timm/vit_base_patch16_224",
                "arguments": {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2},
                "size": 16,
            }
        ),
    ),
)
