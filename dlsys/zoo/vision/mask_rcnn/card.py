"""The card of Mask R-CNN."""

from __future__ import annotations

from dlsys.spec.card import Card, Tiny
from dlsys.spec.section import Bool, Count
from dlsys.spec.task import DETECT_INSTANCES, PROPOSALS
from dlsys.zoo.vision.faster_rcnn.card import TINY, FasterRCNNOptions


class MaskRCNNOptions(FasterRCNNOptions):
    """Those of Faster R-CNN, and of the branch for masks."""

    pyramid: Bool = True
    """Whether the last stages' maps make a feature pyramid, one for each of `sizes`; otherwise the last
    stage's map is the only one, which is coarse for masks."""
    mask_pool: Count = 7
    """Side of what RoIAlign makes of a region for its mask, which gets twice the side."""
    mask_channels: Count = 32
    """Channels of the branch."""


_TINY = {**TINY, "pyramid": True, "mask_pool": 3, "mask_channels": 16}
CARD = Card(
    name="mask-rcnn",
    title="Mask R-CNN: Faster R-CNN with a mask for each class of a region",
    paper="He et al. 2017, arXiv:1703.06870",
    workload="dlsys.zoo.vision.mask_rcnn.model:MaskRCNN",
    options=MaskRCNNOptions,
    task=DETECT_INSTANCES,
    extra=PROPOSALS,
    tiny=(Tiny(options=_TINY, learned=1.5),),
)
