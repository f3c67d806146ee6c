"""Architectures of timm and torchvision as catalogue names: what each preset builds, sees and learns."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from dlsys.errors import SpecError, UsageError
from dlsys.spec.catalogue import WORKLOADS
from dlsys.spec.load import load
from dlsys.spec.rows import IMAGES_WITH_CLASSES, Shape
from dlsys.zoo.example import batch_of
from dlsys.zoo.load import load_workload
from dlsys.zoo.vision.library.card import CARD

SMALL = sorted(preset for preset in CARD.presets if preset.endswith("-small"))


def images(channels: int, side: int) -> Shape:
    return Shape(row={"image": (channels, side, side), "label": ()}, classes=5)


pytestmark = pytest.mark.usefixtures("seeded")


def test_every_name_has_a_small_preset() -> None:
    names = [name for name in WORKLOADS.names() if WORKLOADS.load(name).workload == CARD.workload]
    assert sorted(f"{name}-small" for name in names if name != CARD.name) == SMALL


@pytest.mark.parametrize("preset", SMALL)
@pytest.mark.parametrize("shape", [images(3, 32), images(1, 8)], ids=["3x32x32", "1x8x8"])
def test_a_small_preset_learns(preset: str, shape: Shape) -> None:
    workload = load_workload(CARD.name, {"preset": preset}, shape)
    model, batch = workload.build(), batch_of(IMAGES_WITH_CLASSES, shape, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    losses: list[float] = []
    for _ in range(5):
        outputs, _ = workload.forward(model, batch, None)
        assert outputs.shape == (8, 5)
        loss = workload.objective(outputs, batch).value
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("architecture", ["torchvision/squeezenet1_1", "timm/test_resnet"])
def test_images_are_enlarged_and_given_the_colours_that_a_network_takes(architecture: str) -> None:
    options = {"architecture": architecture}
    taken = 3 if architecture.startswith("torchvision") else 1
    plain = load_workload(CARD.name, options, images(taken, 32)).build().eval()
    fitted = load_workload(CARD.name, {**options, "size": 32}, images(1, 8)).build().eval()
    fitted.load_state_dict(plain.state_dict())
    image = torch.rand(2, 1, 8, 8)
    enlarged = F.interpolate(image, size=(32, 32), mode="bilinear").repeat(1, taken, 1, 1)
    assert torch.equal(fitted(image), plain(enlarged))


def test_a_name_brings_its_paper_and_a_preset_its_arguments() -> None:
    card = WORKLOADS.load("densenet")
    assert card.paper == "Huang et al. 2017, arXiv:1608.06993"
    assert card.options_of({}).architecture == "timm/densenet121"
    options = card.options_of({"preset": "densenet-small", "arguments": {"drop_rate": 0.1}})
    assert options.arguments == {"growth_rate": 12, "block_config": [2, 4, 4], "drop_rate": 0.1}
    assert card.options_of(options.model_dump(mode="json")) == options


def test_building_leaves_the_presets_as_they_are() -> None:
    """timm's Aligned Xception writes into the blocks that it is given."""
    before = deepcopy(CARD.presets)
    load_workload(CARD.name, {"preset": "xception-small"}, images(3, 32)).build()
    assert before == CARD.presets


def test_batch_norm_is_told_where_it_is() -> None:
    assert "batch norm" in CARD.inexact(CARD.options_of({"preset": "densenet-small"}))
    for preset, wanted in CARD.presets.items():
        if CARD.inexact(CARD.options_of({"preset": preset})):
            continue
        model = load_workload(CARD.name, {**wanted, "preset": preset}, images(3, 32)).build()
        norms = [name for name, module in model.named_modules() if "BatchNorm" in type(module).__name__]
        assert not norms, preset


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"architecture": "timm/resnet19"}, r"model\.architecture: timm has no architecture 'resnet19'"),
        ({"arguments": {"wide": 2}}, r"model: timm/resnet18 cannot be built of .*wide=2"),
        ({"architecture": "transformers/BertModel"}, r"model\.architecture: must be timm/… or torchvision/…"),
    ],
)
def test_what_no_library_builds_is_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_workload(CARD.name, options, images(3, 32)).build()


def test_images_that_a_network_does_not_take_are_told_by_its_name() -> None:
    workload = load_workload(CARD.name, {"architecture": "torchvision/squeezenet1_1"}, images(2, 32))
    batch = batch_of(IMAGES_WITH_CLASSES, images(2, 32), 2)
    with pytest.raises(UsageError, match=r"torchvision/squeezenet1_1 does not take image of shape"):
        workload.forward(workload.build(), batch, None)


def test_auxiliary_classifiers_are_off_and_refused() -> None:
    shape = images(3, 32)
    batch = batch_of(IMAGES_WITH_CLASSES, shape, 2)
    architecture = {"architecture": "torchvision/googlenet"}
    workload = load_workload(CARD.name, architecture, shape)
    outputs, _ = workload.forward(workload.build(), batch, None)
    assert outputs.shape == (2, 5)
    wanted = load_workload(CARD.name, {**architecture, "arguments": {"aux_logits": True}}, shape)
    with pytest.raises(UsageError, match="gives a GoogLeNetOutputs, and one tensor of logits is wanted"):
        wanted.forward(wanted.build(), batch, None)


def test_check_tells_which_library_is_to_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(
        "kind: train\nname: x\nworkload: densenet\nmodel: {preset: densenet-small}\n"
        "data: {source: digits}\nbatch_size: 8\nstop: {epochs: 1}\n"
    )
    load(job)
    monkeypatch.setattr("dlsys.spec.libraries.find_spec", lambda name: None)
    with pytest.raises(SpecError, match=r":3: workload: densenet needs timm.* pip install 'dlsys\[vision\]'"):
        load(job)
