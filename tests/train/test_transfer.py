"""Features that one task has taught serve another, of which few rows are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from harness import job, train, with_workers
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from dlsys.data.images.digits import digits
from dlsys.spec.data import Digits

RESNET = """
kind: train
name: test
workload: resnet
model: {depth: 8, width: 16}
data: {source: digits, valid: 0.3, test: 0, classes: [0, 1, 2, 3, 4]}
batch_size: 32
optimizer: {name: adamw, lr: 0.003}
stop: {epochs: 8}
evaluate: 100 epochs
"""
FEATURES = "freeze=['stem.*', 'stage1.*', 'stage2.*']"
# Rows of the new digits are few, and epochs too: in forty, the net that begins anew comes to 0.96 as well.
FEW = (
    *("data.classes=[5, 6, 7, 8, 9]", "data.per_class=20", "batch_size=20", "optimizer.lr=0.01"),
    "stop.epochs=5",
)


@pytest.mark.quality
def test_frozen_features_are_ahead_of_new_ones_where_rows_are_few(tmp_path: Path) -> None:
    ahead = []
    for seed in range(3):
        folder = tmp_path / str(seed)
        before = train(job(RESNET, f"seed={seed}"), folder / "before")
        save_file(before.weights, folder / "w.safetensors")
        init = f"init={{file: {folder / 'w.safetensors'}, leave: ['stage3.*', 'head.*']}}"
        texts = {"new": (), "frozen": (init, FEATURES)}
        found = {
            name: train(job(RESNET, *FEW, f"seed={seed}", *text), folder / name)
            for name, text in texts.items()
        }
        accuracy = {name: max(one.points["valid/accuracy"].values()) for name, one in found.items()}
        ahead.append(accuracy["frozen"] - accuracy["new"])
        assert accuracy["frozen"] > 0.9
    assert sum(ahead) / len(ahead) > 0.03, ahead


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of threes and one of sevens, as PNG files."""
    folder = tmp_path_factory.mktemp("pictures")
    splits = digits(Digits(source="digits", classes=(3, 7), size=16), Path())
    assert splits.test is not None
    for part in (splits.train, splits.valid, splits.test):
        fields: dict[str, Tensor] = part.fields  # type: ignore[attr-defined]
        for number, (image, label) in enumerate(zip(fields["image"], fields["label"], strict=True)):
            path = folder / ("three", "seven")[int(label)] / f"{id(part)}-{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray((image[0] * 255).byte().numpy()).save(path)
    return folder


@pytest.mark.quality
def test_only_a_new_head_changes(pictures: Path, tmp_path: Path) -> None:
    """timm's weights in a file, another head, and a folder of images of two classes."""
    others = "data={source: digits, size: 16, valid: 0.2, test: 0, classes: [0, 1, 2, 4, 5, 6, 8, 9]}"
    before = train(
        job(RESNET, "workload=timm/test_resnet", "model={}", others, "stop.epochs=8"), tmp_path / "a"
    )
    torch.save(before.weights, tmp_path / "w.pt")
    body = sorted({name.partition(".")[0] for name in before.weights} - {"fc"})
    text = (
        *("workload=timm/test_resnet", "model={}", "stop.epochs=20", "optimizer.lr=0.02"),
        f"data={{source: image-folder, path: {pictures}, size: 16, channels: 1, valid: 0.2, test: 0.2}}",
        f"init={{file: {tmp_path / 'w.pt'}, leave: ['fc.*']}}",
        f"freeze={[f'{name}.*' for name in body]}",
    )
    found = train(job(RESNET, *text), tmp_path / "b")
    assert any(name.endswith("running_var") for name in found.weights)
    for name, tensor in found.weights.items():
        assert torch.equal(tensor, before.weights[name]) if name[:3] != "fc." else tensor.shape[0] == 2, name
    assert found.points["test/accuracy"].popitem()[1] > 0.95
    assert found.points["valid/accuracy"].popitem()[1] > 0.95


class Normed(nn.Module):
    """A head on what a batch norm gives."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU())
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x))
        return out


def _statistics(weights: dict[str, Any]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if "running" in name}


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "ring", "zero"])
def test_frozen_statistics_stay_under_every_strategy(strategy: str, tmp_path: Path) -> None:
    normed = (f"workload={__name__}:Normed", "model={}", "stop={steps: 4}", "freeze=['body.*']")
    one = train(job(RESNET, *normed), tmp_path / "one")
    assert _statistics(one.weights)["body.2.running_mean"].eq(0).all()
    text = (*normed, f"strategy.name={strategy}", "resources.workers=2")
    two = with_workers(job(RESNET, *text), tmp_path / "two").weights
    assert _statistics(two).keys() == _statistics(one.weights).keys()
    for name, tensor in one.weights.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-5, rtol=1e-5)


def test_statistics_alone_may_stay(tmp_path: Path) -> None:
    found = train(
        job(RESNET, f"workload={__name__}:Normed", "model={}", "stop={steps: 4}", "freeze=['*.running_*']"),
        tmp_path,
    ).weights
    assert found["body.2.running_var"].eq(1).all()
    assert not found["body.2.weight"].eq(1).all()
