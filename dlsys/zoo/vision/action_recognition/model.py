"""R(2+1)D and R3D (Tran et al. 2018, arXiv:1711.11248): residual nets whose convolutions see time too.

The layers are those of torchvision's `video.r3d_18` and `video.r2plus1d_18`, in the same order. A factorised
convolution has as many maps between space and time as make it as large as the whole one. With `temporal:
none` convolutions, and strides, leave time alone: a clip is then the mean of what its frames show.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor, nn

from dlsys.zoo.layers.blocks import groups
from dlsys.zoo.tasks.classify import Classify
from dlsys.zoo.vision.action_recognition.card import CARD, ActionRecognitionOptions
from dlsys.zoo.workload import Batch, Sample

# So many clips are drawn.
_SHOWN = 8


class ActionRecognition(Classify):
    """Logits (rows, classes) from `clip` (rows, frames, channels, height, width)."""

    Options = ActionRecognitionOptions
    card = CARD

    def build(self) -> nn.Module:
        width, layers = self.options.width, _Layers(self.options)
        channels = self.shape.row["clip"][1]
        stages = OrderedDict(
            (f"stage{number + 1}", _stage(layers, width << max(0, number - 1), width << number, number))
            for number in range(4)
        )
        model = nn.Sequential(
            OrderedDict(
                stem=layers.stem(channels, width),
                **stages,
                head=nn.Sequential(
                    nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8 * width, self.shape.classes)
                ),
            )
        )
        for module in model.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Block):
                # Blocks begin as their shortcuts (Goyal et al. 2017, arXiv:1706.02677, section 5.1): without
                # that a change by a rounding grew a hundredfold in three steps.
                nn.init.zeros_(module.norm2.weight)
        return model

    def pictures(self, model: nn.Module, batch: Batch, images: Tensor) -> Mapping[str, Sample]:
        from dlsys.zoo.drawing import strips  # every run imports this file, and few draw

        outputs, _ = self.forward(model, batch, None)
        return {"clips": strips(images[:_SHOWN], batch["label"], outputs.argmax(1))}


class ChannelsFirst(nn.Module):
    """(rows, frames, channels, height, width) to (rows, channels, frames, height, width)."""

    def forward(self, clip: Tensor) -> Tensor:
        return clip.transpose(1, 2)


class _Layers:
    """Convolutions of clips, as options have them."""

    def __init__(self, options: ActionRecognitionOptions) -> None:
        self.options = options

    def stem(self, channels: int, width: int) -> nn.Sequential:
        """7 × 7 pixels, and 3 frames, with stride 2 in space."""
        if self.options.temporal == "2+1d":
            between = max(1, 45 * width // 64)
            return nn.Sequential(
                ChannelsFirst(),
                _convolution(channels, between, (1, 7, 7), (1, 2, 2)),
                self.norm(between),
                nn.ReLU(),
                _convolution(between, width, (3, 1, 1)),
                self.norm(width),
                nn.ReLU(),
            )
        frames = 3 if self.options.temporal == "3d" else 1
        return nn.Sequential(
            ChannelsFirst(),
            _convolution(channels, width, (frames, 7, 7), (1, 2, 2)),
            self.norm(width),
            nn.ReLU(),
        )

    def convolution(self, inputs: int, outputs: int, between: int, stride: int) -> nn.Module:
        """3 × 3 pixels and 3 frames, where time is seen."""
        if self.options.temporal == "3d":
            return _convolution(inputs, outputs, (3, 3, 3), (stride,) * 3)
        space = (1, stride, stride)
        if self.options.temporal == "none":
            return _convolution(inputs, outputs, (1, 3, 3), space)
        return nn.Sequential(
            _convolution(inputs, between, (1, 3, 3), space),
            self.norm(between),
            nn.ReLU(),
            _convolution(between, outputs, (3, 1, 1), (stride, 1, 1)),
        )

    def shortcut(self, inputs: int, outputs: int, stride: int) -> nn.Module:
        if stride == 1 and inputs == outputs:
            return nn.Identity()
        frames = 1 if self.options.temporal == "none" else stride
        return nn.Sequential(
            _convolution(inputs, outputs, (1, 1, 1), (frames, stride, stride)), self.norm(outputs)
        )

    def norm(self, maps: int) -> nn.BatchNorm3d | nn.GroupNorm:
        # Group norm: Wu and He 2018, arXiv:1803.08494.
        return nn.BatchNorm3d(maps) if self.options.norm == "batch" else nn.GroupNorm(groups(maps), maps)


class Block(nn.Module):
    """relu(x + f(x)): (rows, inputs, t, h, w) to (rows, outputs, t′, h′, w′), sides divided by the stride and
    rounded up."""

    def __init__(self, layers: _Layers, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        # So many maps that the first convolution is as large as 3 × 3 × 3; the second one has as many.
        between = inputs * outputs * 27 // (inputs * 9 + 3 * outputs)
        self.conv1 = nn.Sequential(
            layers.convolution(inputs, outputs, between, stride), layers.norm(outputs), nn.ReLU()
        )
        self.conv2 = layers.convolution(outputs, outputs, between, 1)
        self.norm2 = layers.norm(outputs)
        self.relu = nn.ReLU()
        self.shortcut = layers.shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm2(self.conv2(self.conv1(x)))
        outer: Tensor = self.relu(inner + self.shortcut(x))
        return outer


def _stage(layers: _Layers, inputs: int, outputs: int, number: int) -> nn.Sequential:
    """Blocks of which the first one halves the sides, but in the first stage."""
    return nn.Sequential(
        Block(layers, inputs, outputs, 1 if number == 0 else 2),
        *(Block(layers, outputs, outputs, 1) for _ in range(layers.options.blocks - 1)),
    )


def _convolution(
    inputs: int, outputs: int, sides: tuple[int, int, int], stride: tuple[int, ...] = (1, 1, 1)
) -> nn.Conv3d:
    """Frames, height and width stay, or are divided by the stride and rounded up."""
    padding = tuple(side // 2 for side in sides)
    # The norm behind it has its own bias.
    return nn.Conv3d(inputs, outputs, sides, stride, padding, bias=False)  # type: ignore[arg-type]
