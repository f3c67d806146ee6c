"""Counted facts are those of a real run: parameters, FLOPs, and memory held for backward."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import job
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from dlsys.spec.catalogue import WORKLOADS
from dlsys.spec.rows import IMAGES_WITH_CLASSES, Rows, Shape
from dlsys.zoo.example import batch_of
from dlsys.zoo.imported import PlainModel
from dlsys.zoo.load import load_workload
from dlsys.zoo.measure import count, measure
from dlsys.zoo.solved import Solved
from dlsys.zoo.tasks.svm import LinearSVM
from dlsys.zoo.workload import Batch, Workload

NAMES = [name for name in WORKLOADS.names() if not WORKLOADS.load(name).preset]
ROWS = 32


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny(name: str) -> tuple[Workload, Rows, Shape]:
    card = WORKLOADS.load(name)
    rows = card.rows[0]
    return load_workload(name, card.tiny[0].options, rows.examples[0]), rows, rows.examples[0]


def forward_flops(workload: Workload, model: nn.Module, batch: Batch) -> int:
    # oneDNN's LSTM and the CPU's attention are one kernel each, of which torch counts nothing.
    apart = torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH)
    with apart[0], apart[1], FlopCounterMode(display=False) as counter:
        workload.forward(model, batch, None)
    return counter.get_total_flops()


def held(workload: Workload, model: nn.Module, batch: Batch) -> int:
    """Bytes that the allocator has given out, and not got back, when a phase's loss is there."""
    most = 0
    for phase in workload.phases():
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(phase.parameters))
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            kept = phase.loss(model, batch, None)
        most = max(most, sum(event.self_cpu_memory_usage for event in profiler.events()))
        del kept
    return most


def hold_against_a_run(workload: Workload, rows: Rows, shape: Shape) -> None:
    found = count(workload, partial(batch_of, rows, shape))
    model, small, large = workload.build().train(), *(batch_of(rows, shape, n) for n in (ROWS, 2 * ROWS))
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    real = forward_flops(workload, model, large) - forward_flops(workload, model, small)
    assert found.flops == pytest.approx(real / ROWS, rel=0.01)
    # Backward computes as much for the weights, and as much again for what the layer below gave.
    # Features that nobody learns are computed once, and what is solved for has no backward.
    least = 1 if isinstance(workload, LinearSVM | Solved) else 2
    assert least * found.flops <= found.step_flops <= 4 * found.flops
    held(workload, model, small)  # what is allocated once stays out
    memory = held(workload, model, large) - held(workload, model, small)
    assert found.activation_bytes == pytest.approx(memory / ROWS, rel=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_a_workload_costs_what_is_counted(name: str) -> None:
    hold_against_a_run(*tiny(name))


IMAGES = Shape(row={"image": (3, 32, 32), "label": ()}, classes=10)


VIT = """
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        self.net = ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, num_labels=10, **sizes))

    def forward(self, image):
        return self.net(image).logits
"""


def test_a_model_of_transformers_costs_what_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_vit.py").write_text(VIT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    hold_against_a_run(load_workload("own_vit:Net", {}, IMAGES), IMAGES_WITH_CLASSES, IMAGES)


def test_a_model_of_torchvision_costs_what_is_counted() -> None:
    workload = load_workload("torchvision.models:resnet18", {"num_classes": 10}, IMAGES)
    # The published count, with 10 classes for 1000.
    assert count(workload, partial(batch_of, IMAGES_WITH_CLASSES, IMAGES)).parameters == 11_181_642
    hold_against_a_run(workload, IMAGES_WITH_CLASSES, IMAGES)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_counted_as_one_kernel(masked: bool) -> None:
    """4 n² d operations forward; no n × n weights are kept."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.MultiheadAttention(16, 2, batch_first=True)
            self.mask = torch.zeros(64, 64) if masked else None

        def forward(self, image: Tensor) -> Tensor:
            x = image.flatten(1, 2)
            mask = None if self.mask is None else self.mask.to(x.device)
            outputs: Tensor = self.inner(x, x, x, attn_mask=mask, need_weights=False)[0]
            return outputs.mean(1)

    shape = Shape(row={"image": (8, 8, 16), "label": ()}, classes=16)
    found = count(PlainModel(Attention, {}, shape), partial(batch_of, IMAGES_WITH_CLASSES, shape))
    projections = 2 * 64 * 16 * (3 * 16 + 16)
    assert found.flops == projections + 4 * 64 * 64 * 16
    assert found.activation_bytes < 16 * 4 * 64 * 16, "two heads of n × n would be 16 more"


@pytest.mark.parametrize("groups", [1, 4, 8])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_grouped_convolutions_step_is_three_times_its_forward(groups: int, transposed: bool) -> None:
    """By hand: torch counts the gradient of its weights as if it had one group."""
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    layers = nn.Conv2d(1, 8, 1), kind(8, 16, 3, padding=1, groups=groups), nn.Flatten(), nn.Linear(256, 2)
    shape = Shape(row={"image": (1, 4, 4), "label": ()}, classes=2)
    workload = PlainModel(lambda: nn.Sequential(*layers), {}, shape)
    found = count(workload, partial(batch_of, IMAGES_WITH_CLASSES, shape))
    first, grouped, last = 2 * 16 * 8, 2 * 16 * 9 * 8 * 16 // groups, 2 * 256 * 2
    assert found.flops == first + grouped + last
    assert found.step_flops == 2 * first + 3 * (grouped + last), "images need no gradient"


def test_what_looks_at_its_numbers_is_counted_on_real_rows() -> None:
    class Picky(nn.Linear):
        def forward(self, image: Tensor) -> Tensor:
            x = image.flatten(1)
            return super().forward(x if float(x.sum()) > -1 else -x)

    shape = Shape(row={"image": (1, 2, 2), "label": ()}, classes=3)
    workload = PlainModel(Picky, {"in_features": 4, "out_features": 3}, shape)
    found = count(workload, partial(batch_of, IMAGES_WITH_CLASSES, shape))
    assert (found.parameters, found.flops) == (15, 24)


def test_a_job_is_counted_on_its_own_data(tmp_path: Path) -> None:
    found = measure(job(), tmp_path)
    assert (found.parameters, found.flops) == (65 * 10, 2 * 64 * 10)


def test_a_model_of_any_size_is_counted_in_little_memory() -> None:
    shape = Shape(row={"features": (100_000,), "label": ()}, classes=100_000)
    workload = PlainModel(nn.Linear, {"in_features": 100_000, "out_features": 100_000}, shape)

    def rows(count: int) -> Batch:
        features = torch.zeros(1, 1).expand(count, 100_000)
        return {"features": features, "label": torch.zeros(count, dtype=torch.int64)}

    assert count(workload, rows).parameters == 100_000 * 100_001  # 40 GB
