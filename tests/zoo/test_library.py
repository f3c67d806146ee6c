"""Architectures of libraries by name: as large as was published, sized by the rows, and refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dlsys.errors import SpecError, UsageError
from dlsys.spec.libraries import Architecture, architecture, missing
from dlsys.spec.load import load
from dlsys.spec.rows import Shape
from dlsys.zoo.library import built, names
from dlsys.zoo.load import load_workload

IMAGES = Shape(row={"image": (3, 32, 32), "label": ()}, classes=10)
# With 1000 classes, as their papers or the libraries' tables of weights have them; without the auxiliary
# classifiers, of which torchvision's table counts Inception v3's 3,326,696 in.
PUBLISHED = {
    "timm/convnext_tiny": 28_589_128,
    "timm/densenet121": 7_978_856,
    "timm/efficientnet_b0": 5_288_548,
    "timm/mixer_b16_224": 59_880_472,
    "timm/regnety_016": 11_202_430,
    "timm/resnet50": 25_557_032,
    "timm/swin_tiny_patch4_window7_224": 28_288_354,
    "timm/vit_base_patch16_224": 86_567_656,
    "torchvision/alexnet": 61_100_840,
    "torchvision/googlenet": 6_624_904,
    "torchvision/inception_v3": 23_834_568,
    "torchvision/mobilenet_v2": 3_504_872,
    "torchvision/resnext50_32x4d": 25_028_904,
    "torchvision/shufflenet_v2_x1_0": 2_278_604,
    "torchvision/squeezenet1_1": 1_235_496,
    "torchvision/vgg16": 138_357_544,
    "torchvision/wide_resnet50_2": 68_883_240,
}


def of(name: str) -> Architecture:
    found = architecture(name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_they_are_as_large_as_was_published(name: str) -> None:
    more = {"init_weights": False} if name.endswith("googlenet") else {}
    make, options = built(of(name), more, Shape(row={"image": (3, 224, 224), "label": ()}, classes=1000))
    with torch.device("meta"):
        model = make(**options)
    assert sum(parameter.numel() for parameter in model.parameters()) == PUBLISHED[name]


@pytest.mark.parametrize(
    ("name", "shape", "outputs"),
    [
        ("timm/test_resnet", Shape(row={"image": (1, 32, 32), "label": ()}, classes=7), 7),
        ("timm/test_vit", Shape(row={"image": (3, 160, 160), "target": (2,)}), 2),
        ("torchvision/squeezenet1_1", IMAGES, 10),
    ],
)
def test_sizes_are_those_of_the_rows_and_it_takes_a_step(name: str, shape: Shape, outputs: int) -> None:
    workload = load_workload(name, {}, shape)
    model = workload.build()
    batch = {"image": torch.rand(4, *shape.row["image"])}
    if "target" in shape.row:
        batch["target"] = torch.rand(4, outputs)
    else:
        batch["label"] = torch.arange(4) % outputs
    given, _ = workload.forward(model, batch, None)
    assert given.shape == (4, outputs)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    loss = workload.objective(given, batch).value
    loss.backward()
    assert all(value.grad is not None for value in model.parameters() if value.requires_grad)
    optimizer.step()


def test_a_model_of_transformers_is_built_from_its_configuration() -> None:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    workload = load_workload(
        "transformers/ViTForImageClassification", {**small, "image_size": 32, "patch_size": 8}, IMAGES
    )
    model = workload.build()
    given, _ = workload.forward(
        model, {"image": torch.rand(2, 3, 32, 32), "label": torch.zeros(2).long()}, None
    )
    assert given.shape == (2, 10)


def test_what_the_job_says_counts_before_the_rows() -> None:
    _, options = built(of("timm/resnet18"), {"num_classes": 3, "drop_rate": 0.5}, IMAGES)
    assert options == {"num_classes": 3, "in_chans": 3, "drop_rate": 0.5}


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("timm/resnet19", {}, r"timm has no architecture 'resnet19'\. Did you mean 'resnet18'\?"),
        ("torchvision/swim_t", {}, r"torchvision has no architecture 'swim_t'\. Did you mean 'swin_t'\?"),
        ("transformers/BertModel", {}, "transformers has no architecture 'BertModel'"),
        ("timm/resnet18", {"wide": 2}, "timm/resnet18 cannot be built of num_classes=10, in_chans=3, wide=2"),
        ("transformers/ViTForImageClassification", {"wide": 2}, "model.wide: unknown key"),
    ],
)
def test_what_there_is_not_is_refused(name: str, options: dict[str, int], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_workload(name, options, IMAGES).build()


def test_images_that_it_does_not_take_are_told_by_its_name() -> None:
    workload = load_workload(
        "torchvision/squeezenet1_1", {}, Shape(row={"image": (1, 32, 32), "label": ()}, classes=2)
    )
    batch = {"image": torch.rand(2, 1, 32, 32), "label": torch.zeros(2).long()}
    with pytest.raises(UsageError, match=r"workload: torchvision/squeezenet1_1 does not take image of shape"):
        workload.forward(workload.build(), batch, None)


def test_libraries_are_known_by_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "job.yaml"

    def write(workload: str) -> None:
        file.write_text(
            f"kind: train\nname: x\nworkload: {workload}\ndata: {{source: digits}}\nbatch_size: 8\n"
            "stop: {epochs: 1}\n"
        )

    write("timm/resnet18")
    load(file)
    write("tim/resnet18")
    with pytest.raises(SpecError, match=r":3: workload: unknown library 'tim'\. Did you mean 'timm'\?"):
        load(file)
    monkeypatch.setattr("dlsys.spec.libraries.find_spec", lambda name: None)
    write("torchvision/swin_t")
    with pytest.raises(SpecError, match=r":3: workload: needs torchvision.* pip install 'dlsys\[vision\]'"):
        load(file)
    assert "dlsys[language]" in missing("transformers")


def test_they_are_listed() -> None:
    assert {"resnet50", "convnext_tiny"} <= set(names("timm"))
    assert {"swin_t", "vit_b_16"} <= set(names("torchvision"))
    listed = names("transformers")
    assert {"BertForSequenceClassification", "ViTForImageClassification"} <= set(listed)
    assert not [name for name in listed if name.startswith("Auto")]
