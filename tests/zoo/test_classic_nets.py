"""AlexNet, ZF Net, VGG and Network in Network: what is told of them, but for their sizes in parameters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dlsys.own.imports import import_own
from dlsys.spec.catalogue import WORKLOADS
from dlsys.spec.rows import Shape
from dlsys.train.strategies import tensor
from dlsys.zoo.layers.enlarge import Enlarge
from dlsys.zoo.load import load_workload

IMAGENET = (3, 224, 224)
SLIM = {"width": 0.04, "dropout": 0.0}


def build(name: str, options: dict[str, object], image: tuple[int, ...], classes: int = 10) -> nn.Module:
    return load_workload(name, options, Shape(row={"image": image, "label": ()}, classes=classes)).build()


def on_meta(name: str, options: dict[str, object]) -> nn.Module:
    with torch.device("meta"):
        return build(name, options, IMAGENET, 1000)


def sides(model: nn.Module, kinds: type | tuple[type, ...]) -> list[int]:
    """Pixels a side of what layers of these kinds give, of the paper's images."""
    found: list[int] = []
    for module in model.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(lambda _, __, output: found.append(output.shape[-1]))
    model(torch.rand(1, *IMAGENET, device=next(model.parameters()).device))
    return found


@pytest.mark.parametrize("name", ["alexnet", "zf-net", "vgg", "nin"])
@pytest.mark.parametrize("image", [(1, 8, 8), (3, 32, 32), (3, 64, 90)])
def test_they_take_any_image(name: str, image: tuple[int, ...]) -> None:
    assert build(name, SLIM, image)(torch.rand(2, *image)).shape == (2, 10)


@pytest.mark.parametrize("name", ["alexnet", "zf-net", "vgg"])
def test_smaller_images_are_enlarged_to_the_least_that_has_something_left(name: str) -> None:
    least = WORKLOADS.load(name).options().size
    model = build(name, SLIM, (1, 8, 8))
    assert [module.size for module in model.modules() if isinstance(module, Enlarge)] == [least]
    flat = next(module for module in model.modules() if isinstance(module, nn.Linear)).in_features
    last = [module for module in model.modules() if isinstance(module, nn.Conv2d)][-1].out_channels
    assert flat == last, "one pixel of each map"


def test_enlarging_is_bilinear_and_leaves_large_images() -> None:
    # Twice as many pixels lie at -1/4, 1/4, 3/4 and 5/4 of the old ones; outside is as the edge.
    image = torch.tensor([[0.0, 4.0]]).expand(1, 1, 2, 2)
    assert torch.equal(Enlarge(4)(image)[0, 0], torch.tensor([[0.0, 1.0, 3.0, 4.0]]).expand(4, 4))
    assert Enlarge(2)(image) is image
    assert Enlarge(3)(torch.rand(1, 1, 2, 5)).shape == (1, 1, 3, 5)


@pytest.mark.parametrize("name", ["alexnet", "zf-net"])
def test_responses_are_normalized_as_the_paper_says(name: str) -> None:
    norms = [m for m in build(name, SLIM, (1, 64, 64)).modules() if isinstance(m, nn.LocalResponseNorm)]
    assert len(norms) == 2
    maps = torch.full((1, 6, 1, 1), 100.0, dtype=torch.float64)
    # A map in the middle is summed with four, 2 + 10⁻⁴ · 5 · 100² = 7, one at the edge with two.
    middle, next_to_edge, edge = 100 / 7**0.75, 100 / 6**0.75, 100 / 5**0.75
    expected = [edge, next_to_edge, middle, middle, next_to_edge, edge]
    for norm in norms:
        assert norm(maps).flatten().tolist() == pytest.approx(expected)
    assert (middle, edge) == pytest.approx((23.2368, 29.9070), abs=1e-4)


def test_alexnets_second_group_sees_only_its_half_of_the_maps() -> None:
    for groups, sees in ((2, False), (1, True)):
        model = build("alexnet", {**SLIM, "groups": groups}, (1, 63, 63))
        for number in (2, 3, 4, 5):
            layer = model.get_submodule(f"conv{number}.0")
            assert isinstance(layer, nn.Conv2d)
            inputs = torch.zeros(1, layer.in_channels, 3, 3)
            first = inputs.clone()
            first[:, : layer.in_channels // 2] = 1.0
            seen = bool((layer(first) != layer(inputs))[:, layer.out_channels // 2 :].any())
            assert seen == (sees or number == 3), "the third convolution sees both halves (section 3.5)"


def test_alexnets_maps_have_the_papers_sides() -> None:
    model = on_meta("alexnet", {})
    assert sides(model, nn.Conv2d) == [55, 27, 13, 13, 13]
    pools = [m for m in model.modules() if isinstance(m, nn.MaxPool2d)]
    assert [(pool.kernel_size, pool.stride) for pool in pools] == [(3, 2)] * 3, "they overlap"
    dropouts = [m.p for m in model.modules() if isinstance(m, nn.Dropout)]
    assert dropouts == [0.5, 0.5]


@pytest.mark.parametrize(
    ("name", "options", "grouped"),
    [
        ("alexnet", {}, ["conv2.0", "conv4.0", "conv5.0"]),
        ("alexnet", {"groups": 1}, []),
        ("zf-net", {}, []),
        ("vgg", {"depth": 11}, []),
    ],
)
def test_plans_know_what_is_cut(name: str, options: dict[str, object], grouped: list[str]) -> None:
    card = WORKLOADS.load(name)
    assert card.tensor_plan is not None
    plan = card.tensor_plan(card.options.model_validate({**SLIM, **options}))
    model = build(name, {**SLIM, **options}, (1, 8, 8))
    assert [layer for layer, cut in plan.items() if cut.style == "groups"] == grouped
    assert {layer: tensor._units(layer, model.get_submodule(layer), cut) for layer, cut in plan.items()} == {
        layer: cut.units for layer, cut in plan.items()
    }


def test_zf_nets_first_layers_are_the_papers() -> None:
    model = on_meta("zf-net", {})
    first, second, *_ = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert (first.out_channels, first.kernel_size, first.stride) == (96, (7, 7), (2, 2))
    assert (second.out_channels, second.kernel_size, second.stride) == (256, (5, 5), (2, 2))
    assert sides(model, (nn.Conv2d, nn.MaxPool2d)) == [110, 55, 26, 13, 13, 13, 13, 6]


def layers(model: nn.Module) -> list[tuple[type, list[torch.Size]]]:
    """The layers that compute or drop something, each with the shapes of its weights."""
    passed = (Enlarge, nn.Flatten, nn.AdaptiveAvgPool2d)
    leaves = [m for m in model.modules() if not [*m.children()] and not isinstance(m, passed)]
    return [(type(leaf), [weight.shape for weight in leaf.parameters()]) for leaf in leaves]


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_vgg_has_torchvisions_layers(depth: int, norm: str) -> None:
    make = import_own(f"torchvision.models:vgg{depth}{'_bn' if norm == 'batch' else ''}", "workload")
    with torch.device("meta"):
        theirs = make(init_weights=False)
    assert layers(on_meta(f"vgg-{depth}", {"norm": norm})) == layers(theirs)


def test_vgg_of_torchvisions_weights_computes_the_same() -> None:
    make_layers = import_own("torchvision.models.vgg:make_layers", "workload")
    ours = build("vgg", {"depth": 11, "width": 0.125, "norm": "batch"}, (3, 32, 32)).eval()
    stages = nn.Sequential(*(ours.get_submodule(f"stage{number}") for number in range(1, 6)))
    theirs = make_layers([8, "M", 16, "M", 32, 32, "M", 64, 64, "M", 64, 64, "M"], batch_norm=True).eval()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), stages.state_dict().values(), strict=True)))
    images = torch.rand(2, 3, 64, 96)
    torch.testing.assert_close(stages(images), theirs(images).flatten(1))


def test_nin_has_no_dense_layer_and_a_map_for_each_class() -> None:
    model = build("nin", {}, (3, 32, 32), 7)
    assert not any(isinstance(module, nn.Linear) for module in model.modules())
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.kernel_size[0], m.out_channels) for m in convolutions] == [
        *((5, 192), (1, 160), (1, 96)),
        *((5, 192), (1, 192), (1, 192)),
        *((3, 192), (1, 192), (1, 7)),
    ]


def test_nins_logits_are_the_means_of_its_maps() -> None:
    model = build("nin", SLIM, (3, 32, 32), 7).eval()
    maps: list[torch.Tensor] = []
    last = [m for m in model.modules() if isinstance(m, nn.Conv2d)][-1]
    last.register_forward_hook(lambda _, __, output: maps.append(output))
    logits = model(torch.rand(2, 3, 32, 32))
    assert maps[0].shape == (2, 7, 8, 8)  # 32 pixels a side, halved twice
    torch.testing.assert_close(logits, maps[0].mean((2, 3)))
