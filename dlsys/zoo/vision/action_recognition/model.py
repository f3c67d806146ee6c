"""R(2+1)D and R3D (Tran et al. 2018, arXiv:1711.11248): residual nets of clips."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor, nn

from dlsys.zoo.tasks.classify import Classify
from dlsys.zoo.vision.action_recognition.card import CARD, ActionRecognitionOptions
from dlsys.zoo.workload import Batch, Sample

_Sides = tuple[int, int, int]


class ChannelsFirst(nn.Module):
    """Clips (rows, frames, channels, height, width) as volumes (rows, channels, frames, height, width)."""

    def forward(self, clip: Tensor) -> Tensor:
        return clip.transpose(1, 2)


def _convolution(inputs: int, outputs: int, sides: _Sides, stride: _Sides) -> nn.Conv3d:
    time, height, width = (side // 2 for side in sides)
    return nn.Conv3d(inputs, outputs, sides, stride, (time, height, width), bias=False)


def _window(temporal: str, inputs: int, middle: int, outputs: int, side: int, stride: _Sides) -> nn.Module:
    """A convolution of `side` × `side` in space and 3 in time, as `temporal` takes it apart."""
    time, *space = stride
    if temporal == "3d":
        return _convolution(inputs, outputs, (3, side, side), stride)
    if temporal == "none":
        return _convolution(inputs, outputs, (1, side, side), stride)
    return nn.Sequential(
        _convolution(inputs, middle, (1, side, side), (1, space[0], space[1])),
        nn.BatchNorm3d(middle),
        nn.ReLU(inplace=True),
        _convolution(middle, outputs, (3, 1, 1), (time, 1, 1)),
    )


class Block(nn.Module):
    """relu(x + f(x)); with a stride, the shortcut is a convolution of 1 × 1 × 1 of that stride."""

    def __init__(self, temporal: str, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        # As many weights as the window in three dimensions has (section 3.5).
        middle = inputs * outputs * 27 // (inputs * 9 + 3 * outputs)
        strides = (stride, stride, stride)
        self.first = nn.Sequential(
            _window(temporal, inputs, middle, outputs, 3, strides),
            nn.BatchNorm3d(outputs),
            nn.ReLU(inplace=True),
        )
        self.second = nn.Sequential(
            _window(temporal, outputs, middle, outputs, 3, (1, 1, 1)), nn.BatchNorm3d(outputs)
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv3d(inputs, outputs, 1, strides, bias=False), nn.BatchNorm3d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = (self.second(self.first(x)) + self.shortcut(x)).relu()
        return found


class ActionRecognition(Classify):
    """Logits (rows, classes) from `clip` (rows, frames, channels, height, width)."""

    Options = ActionRecognitionOptions
    card = CARD

    def build(self) -> nn.Module:
        options: ActionRecognitionOptions = self.options
        channels, maps = self.shape.row["clip"][1], options.width
        large = options.stem == "large"
        side, stride = (7, (1, 2, 2)) if large else (3, (1, 1, 1))
        # The paper's 45 of 64.
        stem = nn.Sequential(
            _window(options.temporal, channels, max(1, maps * 45 // 64), maps, side, stride),
            nn.BatchNorm3d(maps),
            nn.ReLU(inplace=True),
        )
        stages = nn.Sequential()
        inputs = maps
        for number, count in enumerate(options.stages):
            outputs = maps * 2**number
            for place in range(count):
                stages.append(Block(options.temporal, inputs, outputs, 2 if number and not place else 1))
                inputs = outputs
        head = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(inputs, self.shape.classes))
        model = nn.Sequential(OrderedDict(order=ChannelsFirst(), stem=stem, stages=stages, head=head))
        for module in model.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        return model

    def pictures(self, model: nn.Module, batch: Batch, images: Tensor) -> Mapping[str, Sample]:
        """Some clips, each as a strip of its frames."""
        strips = images[:8].permute(0, 2, 3, 1, 4).flatten(3)
        return {"clips": strips}
