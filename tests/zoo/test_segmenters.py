"""What is each segmenter's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dlsys.errors import UsageError
from dlsys.spec.rows import Shape
from dlsys.zoo.load import load_workload
from dlsys.zoo.vision.deeplab_v3.model import ASPP, DeepLabV3Net
from dlsys.zoo.vision.fcn.model import FCNNet
from dlsys.zoo.vision.squeezeseg.model import Context
from dlsys.zoo.vision.unet.model import UNetNet

SHAPE = Shape(row={"image": (3, 64, 64), "mask": (64, 64)}, classes=4)


def built(name: str, shape: Shape = SHAPE, **model: object) -> nn.Module:
    torch.manual_seed(0)
    return load_workload(name, model, shape).build().eval()


def without_norms(net: nn.Module) -> nn.Module:
    """The net without its group norms, in which all places see each other."""
    for module in [*net.modules()]:
        for name, child in [*module.named_children()]:
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, nn.Identity())
    return net


def seen_by_the_middle(net: nn.Module, size: int) -> int:
    """How wide the square is that the middle pixel's answer depends on."""
    image = torch.rand(1, 3, size, size, generator=torch.manual_seed(1), requires_grad=True)
    net(image)[0, :, size // 2, size // 2].sum().backward()
    assert image.grad is not None
    columns = image.grad.abs().sum((0, 1, 2)).nonzero()
    return int(columns.max() - columns.min()) + 1


def test_atrous_convolutions_look_further_with_the_same_weights() -> None:
    options = {"channels": [8, 8, 8, 8], "pyramid": 8, "image_pooling": False}
    near = built("deeplab-v3", stride=2, rates=[1], **options)
    wide = {}
    for stride, rates in ((2, [1]), (2, [4]), (4, [1])):
        net = built("deeplab-v3", stride=stride, rates=rates, **options)
        net.load_state_dict(near.state_dict())
        wide[stride, rates[0]] = seen_by_the_middle(without_norms(net), 160)
    assert wide[2, 1] < wide[2, 4]
    # What a stride no longer does, convolutions do: they look as far over a map twice as fine.
    assert abs(wide[4, 1] - wide[2, 1]) < 16


def test_a_finer_map_looks_as_far() -> None:
    """Without the doubled dilations, a map of half the stride would look half as far."""
    finer = built("deeplab-v3", channels=[8, 8, 8], stride=1, aspp=False, pyramid=8)
    assert isinstance(finer, DeepLabV3Net)
    apart = [m.dilation[0] for m in finer.stages.modules() if isinstance(m, nn.Conv2d)]
    assert apart == [1, 2, 2, 4, 4, 8]
    strided = built("deeplab-v3", channels=[8, 8, 8], stride=8, aspp=False, pyramid=8)
    assert isinstance(strided, DeepLabV3Net)
    assert [m.stride[0] for m in strided.stages.modules() if isinstance(m, nn.Conv2d)] == [2, 1, 2, 1, 2, 1]
    assert finer.stages(torch.rand(1, 3, 16, 16)).shape[-2:] == (16, 16)
    assert strided.stages(torch.rand(1, 3, 16, 16)).shape[-2:] == (2, 2)


def test_the_pyramid_looks_at_each_rate_and_at_the_whole() -> None:
    pyramid = ASPP(8, 8, (2, 5), pooling=True)
    rates = [look[0].dilation[0] for look in pyramid.looks if isinstance(look, nn.Sequential)]  # type: ignore[union-attr, index]
    assert rates == [1, 2, 5]
    net = built("deeplab-v3", channels=[8, 8], stride=2, rates=[1], pyramid=8, image_pooling=True)
    assert seen_by_the_middle(without_norms(net), 96) == 96
    alone = built("deeplab-v3", channels=[8, 8], stride=2, rates=[1], pyramid=8, image_pooling=False)
    assert seen_by_the_middle(without_norms(alone), 96) < 48


@pytest.mark.parametrize(("preset", "strides"), [("32s", [32]), ("16s", [16, 32]), ("8s", [8, 16, 32])])
def test_fcn_answers_from_as_many_maps_as_its_papers(preset: str, strides: list[int]) -> None:
    net = built("fcn", preset=preset)
    assert isinstance(net, FCNNet)
    sides: list[int] = []
    for score in net.scores:
        score.register_forward_hook(lambda module, given, found: sides.append(64 // found.shape[-1]))
    assert net(torch.rand(2, 3, 64, 64)).shape == (2, 4, 64, 64)
    assert sorted(sides) == strides


def test_fcn_has_no_more_skips_than_earlier_stages() -> None:
    with pytest.raises(UsageError, match="2 stages have 1 before the last one, got 2"):
        built("fcn", channels=[8, 8])


@pytest.mark.parametrize("name", ["fcn", "unet", "deeplab-v3"])
@pytest.mark.parametrize("size", [(37, 50), (64, 64)])
def test_an_image_of_any_size_gets_a_mask_as_large(name: str, size: tuple[int, int]) -> None:
    net = built(name)
    with torch.no_grad():
        assert net(torch.rand(1, 3, *size)).shape == (1, 4, *size)


@pytest.mark.parametrize("skips", [True, False])
def test_unets_skips_lead_past_the_smaller_maps(skips: bool) -> None:
    net = built("unet", skips=skips)
    assert isinstance(net, UNetNet)
    for narrow in net.narrow:  # through which all passes that comes from below
        for parameter in narrow.parameters():
            nn.init.zeros_(parameter)
    with torch.no_grad():
        first, second = (net(torch.rand(1, 3, 32, 32)) for _ in range(2))
    assert torch.equal(first, second) != skips


def volumes(*sides: int) -> Shape:
    return Shape(row={"volume": (2, *sides), "mask": sides}, classes=3)


@pytest.mark.parametrize("name", ["3d-unet", "v-net"])
def test_a_volume_gets_a_mask_as_large(name: str) -> None:
    net = built(name, volumes(8, 12, 16))
    with torch.no_grad():
        assert net(torch.randn(1, 2, 8, 12, 16)).shape == (1, 3, 8, 12, 16)


def test_v_net_says_what_its_strides_cannot_halve() -> None:
    with pytest.raises(
        UsageError, match="3 stages halve a volume's sides 2 times, and 10 is no multiple of 4"
    ):
        built("v-net", volumes(8, 10, 16))


def test_v_nets_stages_learn_what_is_added() -> None:
    stage = built("v-net", volumes(8, 8, 8)).stages[0]  # type: ignore[index, union-attr]
    for parameter in stage.layers.parameters():  # type: ignore[union-attr]
        nn.init.zeros_(parameter)
    x = torch.rand(1, 8, 4, 4, 4)
    torch.testing.assert_close(stage(x), x)  # type: ignore[operator]


def test_context_outlasts_a_lost_return() -> None:
    torch.manual_seed(0)
    context = Context(16)
    x = torch.rand(1, 16, 8, 32) + 0.5
    x[..., 4, 16] = 2.0
    lost = x.clone()
    lost[..., 3, 15] = 0.0
    torch.testing.assert_close(context.weigh(lost), context.weigh(x))
    assert context.weigh(x).min() > 0
    assert context.weigh(x).max() < 1


def test_squeezeseg_tells_a_lost_return_from_one_at_the_origin() -> None:
    shape = Shape(row={"scan": (5, 8, 32), "mask": (8, 32)}, classes=3)
    net = built("squeezeseg-v2", shape)
    scan = torch.zeros(1, 5, 8, 32)
    near = scan.clone()
    near[:, 4] = 1e-6
    with torch.no_grad():
        assert net(scan).shape == (1, 3, 8, 32)
        assert (net(near) - net(scan)).abs().max() > 1e-3
