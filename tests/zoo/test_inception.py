"""Inception's modules and the nets of them, and NASNet's cells, held against timm's of the same weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.own.operators import with_operators
from dlsys.spec.rows import Shape
from dlsys.zoo.layers.inception import Conv, Inception, Pool, slimmed
from dlsys.zoo.load import load_workload
from dlsys.zoo.vision.inception_v3.model import large, medium
from dlsys.zoo.vision.nasnet.card import NORMAL, REDUCTION, CellOptions, NASNetOptions
from dlsys.zoo.vision.nasnet.model import Cell, Pooled

pytestmark = pytest.mark.usefixtures("seeded")


def of_timm(name: str, **options: Any) -> nn.Module:
    def built() -> nn.Module:
        import timm

        found: nn.Module = timm.create_model(name, pretrained=False, **options)
        return found

    return with_operators("timm", built).eval()


def take(ours: nn.Module, theirs: Mapping[str, Tensor]) -> None:
    """Gives our model their weights, which stand in the same order."""
    own = ours.state_dict()
    assert [tensor.shape for tensor in own.values()] == [tensor.shape for tensor in theirs.values()]
    ours.load_state_dict(dict(zip(own, theirs.values(), strict=True)))


def randomize_statistics(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "preset", "their"),
    [
        ("inception-v3", "299", "inception_v3"),
        ("inception-v4", "299", "inception_v4"),
        ("inception-v4", "resnet-v2", "inception_resnet_v2"),
    ],
)
def test_published_sizes_compute_what_timms_do(
    name: str, preset: str, their: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"aux_logits": False} if their == "inception_v3" else {}
    theirs = of_timm(their, num_classes=7, **options)
    randomize_statistics(theirs)
    shape = Shape(row={"image": (3, 107, 107), "label": ()}, classes=7)
    ours = load_workload(name, {"preset": preset}, shape).build().eval()
    take(ours, theirs.state_dict())
    pool = F.avg_pool2d

    def there_alone(x: Tensor, *window: Any, **rest: Any) -> Tensor:
        # timm's Inception-v3 counts the padding of its poolings in; the authors' code does not.
        if window or rest.get("count_include_pad") is not False:
            return pool(x, *window[:3], **{**rest, "count_include_pad": False})
        return pool(x, **rest)

    monkeypatch.setattr(F, "avg_pool2d", there_alone)
    x = torch.rand(2, 3, 107, 107)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


def weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.ndim == 4)


def test_a_factorised_window_has_its_share_of_the_weights_and_the_same_sight() -> None:
    whole = Inception(6, [(Conv(6, 7),)])
    pair = Inception(6, [(Conv(6, (1, 7)), Conv(6, (7, 1)))])
    assert weights(pair) * 7 == weights(whole) * 2
    seen = []
    for module in (whole, pair):
        x = torch.zeros(1, 6, 15, 15, requires_grad=True)
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.eval().bias.data.fill_(1.0)  # no ReLU is off
        module(x)[0, :, 7, 7].sum().backward()
        assert x.grad is not None
        seen.append(x.grad[0].abs().sum(0) > 0)
    assert torch.equal(*seen)
    assert seen[0].sum() == 49


def test_a_module_gives_all_branches_maps_and_a_bottleneck_saves_multiplications() -> None:
    branches = large(32)
    module = Inception(192, branches)
    assert module.maps == 64 + 64 + 96 + 32
    assert module(torch.rand(2, 192, 9, 11)).shape == (2, module.maps, 9, 11)
    # Of stride 1, each weight multiplies once for each pixel.
    assert weights(Inception(256, [(Conv(256, 3),)])) > 3 * weights(
        Inception(256, [(Conv(64), Conv(256, 3))])
    )


def test_slimmer_modules_have_as_many_branches() -> None:
    slim = slimmed(medium(128), 0.25)
    assert [len(branch) for branch in slim] == [len(branch) for branch in medium(128)]
    assert Inception(8, slim).maps == 4 * 48
    assert slimmed([(Conv(8), Pool("max"))], 0.01) == ((Conv(4), Pool("max")),)


CELLS = {
    # Their cell: maps of the one before, and how much larger they are; maps of the last; filters; stride.
    "cell_stem_0": (None, 16, 2, 2),
    "cell_stem_1": ((16, 2), 8, 4, 2),
    "cell_0": ((8, 2), 16, 8, 1),
    "cell_1": ((16, 1), 48, 8, 1),
    "reduction_cell_0": ((48, 1), 48, 16, 2),
}


@pytest.mark.parametrize("size", [13, 16])
@pytest.mark.parametrize("name", CELLS)
def test_cells_compute_what_timms_do(name: str, size: int) -> None:
    before, inputs, filters, stride = CELLS[name]
    theirs: Any = getattr(of_timm("nasnetalarge", num_features=192, stem_size=16), name)
    randomize_statistics(theirs)
    for child, module in theirs.named_children():
        # timm's counts its padding in, whatever `count_include_pad` says (findings).
        if type(module).__name__ == "AvgPool2dSame":
            setattr(theirs, child, Pooled("average", 3, module.stride[0]))
    ours = Cell(before, inputs, filters, REDUCTION if stride == 2 else NORMAL, stride).eval()

    def place(key: str) -> int:
        return 1 if key.startswith("conv_1x1") else 2 if key.startswith("comb") else 0

    state = theirs.state_dict()
    take(ours, {key: state[key] for key in sorted(state, key=place)})
    last = torch.randn(2, inputs, size, size)
    previous = torch.randn(2, before[0], size * before[1], size * before[1]) if before else None
    with torch.no_grad():
        if before is None:
            given = (last,)
        elif name == "cell_stem_1":
            given = (previous, last)
        else:
            given = (last, previous)
        torch.testing.assert_close(ours(last, previous), theirs(*given), rtol=1e-4, atol=1e-5)


def test_another_genotype_builds_and_learns() -> None:
    pairs = [[["skip", 0], ["max3", 1]], [["separable3", 2], ["average3", 0]]]
    normal, reduction = ({"pairs": pairs, "gives": gives} for gives in ([1, 2, 3], [2, 3]))
    shape = Shape(row={"image": (1, 9, 12), "label": ()}, classes=3)
    workload = load_workload("nasnet", {"filters": 4, "normal": normal, "reduction": reduction}, shape)
    model = workload.build()
    outputs = model(torch.rand(5, 1, 9, 12))
    assert outputs.shape == (5, 3)
    outputs.sum().backward()
    used = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not used


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"pairs": [[["skip", 2], ["skip", 0]]], "gives": [2]}, "state 2 cannot be skip of state 2: use one"),
        ({"pairs": [[["skip", 1], ["skip", 0]]], "gives": [3]}, "there is no state 3: use some from 0 to 2"),
    ],
)
def test_a_cell_of_states_that_are_not_there_is_refused(told: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        CellOptions.model_validate(told)


def test_a_reduction_gives_what_it_has_reduced() -> None:
    with pytest.raises(ValidationError, match="state 0 is as large as what comes in: give some from 2 to 6"):
        NASNetOptions(reduction=NORMAL)
    with pytest.raises(ValidationError, match="multiple of 4"):
        NASNetOptions(filters=6)
