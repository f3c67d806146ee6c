"""Every workload of the catalogue keeps the protocol and its card: a new one is one row here."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dlsys.data import rowwise
from dlsys.registry import WORKLOADS
from dlsys.spec.card import Shape
from dlsys.spec.data import Source
from dlsys.zoo.load import load_workload
from dlsys.zoo.workload import Batch, Workload, rows_of

ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid)


@dataclass(frozen=True)
class Row:
    """One workload under test.

    Attributes:
        fields: from a number of rows to a batch without its `key`.
        exact: whether the loss is a mean over rows that do not see each other.
        counted: whether torch and hooks can count FLOPs and activations; a recurrent layer is
            one opaque call to both, `test_char_rnn.py` counts those.
        learned: what every phase's loss falls below when it alone fits one batch.
    """

    name: str
    shape: Shape
    fields: Callable[[int], dict[str, Tensor]]
    options: dict[str, Any]
    exact: bool = True
    counted: bool = True
    learned: float = 0.1

    def __str__(self) -> str:
        return "-".join([self.name, *(str(value) for value in self.options.values())])


def images(channels: int, height: int, width: int) -> tuple[Shape, Callable[[int], dict[str, Tensor]]]:
    def fields(rows: int) -> dict[str, Tensor]:
        return {"image": torch.rand(rows, channels, height, width), "label": torch.randint(5, (rows,))}

    return Shape(row={"image": (channels, height, width), "label": ()}, classes=5), fields


def tokens(rows: int) -> dict[str, Tensor]:
    text = torch.randint(11, (rows, 9))
    return {"tokens": text[:, :-1], "targets": text[:, 1:]}


def clicks(rows: int) -> dict[str, Tensor]:
    return {
        "dense": torch.randn(rows, 13),
        "sparse": torch.stack([torch.randint(n, (rows,)) for n in CLICKS.cardinalities], dim=1),
        "label": (torch.arange(rows) % 2).float(),
    }


def ring(rows: int) -> dict[str, Tensor]:
    angle = torch.arange(rows) % 8 * (math.pi / 4)
    return {"point": 2 * torch.stack([angle.cos(), angle.sin()], 1) + 0.02 * torch.randn(rows, 2)}


def numbers(rows: int) -> dict[str, Tensor]:
    return {"features": torch.randn(rows, 5), "target": torch.randn(rows)}


FEATURES = Shape(row={"features": (7,), "label": ()}, classes=3)
TEXT = Shape(row={"tokens": (8,), "targets": (8,)}, vocabulary=tuple("\nabcdefghij"))
CLICKS = Shape(
    row={"dense": (13,), "sparse": (26,), "label": ()}, classes=2, cardinalities=tuple(range(2, 28))
)
NUMBERS = Shape(row={"features": (5,), "target": ()})
RING = Shape(row={"point": (2,)})


def features(rows: int) -> dict[str, Tensor]:
    return {"features": torch.randn(rows, 7), "label": torch.randint(3, (rows,))}


ROWS = [
    Row("softmax-regression", *images(1, 8, 8), {}, learned=0.2),
    Row("softmax-regression", FEATURES, features, {}, learned=0.9),
    Row("lenet-5", *images(1, 8, 8), {}),
    Row("lenet-5", *images(1, 28, 28), {"width": 0.5, "dropout": 0.0}),
    Row("lenet-5", *images(3, 32, 13), {"width": 1.7}),
    Row("resnet", *images(1, 8, 8), {"depth": 8, "width": 4, "norm": "batch"}, exact=False),
    Row("resnet", *images(3, 15, 10), {"depth": 14, "width": 6, "norm": "group"}),
    Row("char-rnn", TEXT, tokens, {"cell": "lstm", "hidden": 24}, counted=False, learned=0.3),
    Row("char-rnn", TEXT, tokens, {"cell": "gru", "hidden": 24, "layers": 2}, counted=False, learned=0.3),
    Row("char-rnn", TEXT, tokens, {"cell": "rnn", "hidden": 24, "layers": 3}, counted=False, learned=0.3),
    Row("dlrm", CLICKS, clicks, {"embedding_dim": 4, "bottom": [8], "top": [16, 8]}),
    Row("dlrm", CLICKS, clicks, {"embedding_dim": 3, "bottom": [], "top": []}),
    # Rows of a group see each other through room and balance; `test_mixture_of_experts.py` counts.
    Row("mixture-of-experts", NUMBERS, numbers, {"balance": 0.0}, counted=False),
    Row("mixture-of-experts", NUMBERS, numbers, {"experts": 5, "top": 1, "width": 48}, False, False),
    Row("gan", RING, ring, {"hidden": 32}),
]

each = pytest.mark.parametrize("row", ROWS, ids=str)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # these models are too small to share out
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def workload_of(row: Row) -> Workload:
    return load_workload(row.name, row.options, row.shape)


def batch_of(row: Row, rows: int) -> Batch:
    return {**row.fields(rows), "key": rowwise.keys(0, 0, np.arange(rows))}


def part(batch: Batch, start: int, end: int) -> Batch:
    return {name: tensor[start:end] for name, tensor in batch.items()}


def test_the_table_has_every_workload() -> None:
    assert {row.name for row in ROWS} == set(WORKLOADS.names())


def test_cards_need_no_torch() -> None:
    code = (
        "import sys; from dlsys.registry import WORKLOADS\n"
        "for name in WORKLOADS.names():\n"
        "    card = WORKLOADS.load(name); assert card.name == name\n"
        "assert not {'torch', 'ray', 'mlflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", WORKLOADS.names())
def test_a_card_names_known_sources(name: str) -> None:
    card = WORKLOADS.load(name)
    sources = {source.model_fields["source"].annotation.__args__[0] for source in Source.__args__[0].__args__}
    assert set(card.sources) <= sources
    assert card.title
    assert card.paper


@each
def test_the_card_says_whether_rows_see_each_other(row: Row) -> None:
    workload = workload_of(row)
    assert workload.card is not None
    assert bool(workload.card.inexact(workload.options)) != row.exact


@each
def test_the_card_has_the_models_parameters(row: Row) -> None:
    workload = workload_of(row)
    model = workload.build()
    assert workload.card is not None
    assert workload.card.name == row.name
    assert workload.Options is workload.card.options
    assert workload.card.parameters(workload.options, row.shape) == sum(
        parameter.numel() for parameter in model.parameters()
    )


@each
def test_the_card_has_the_models_blocks_and_dropout(row: Row) -> None:
    workload = workload_of(row)
    model = workload.build()
    assert workload.card is not None
    assert set(workload.card.blocks) <= {name for name, _ in model.named_modules()}
    assert workload.card.has_dropout == any(isinstance(m, nn.Dropout) for m in model.modules())


@pytest.mark.parametrize("row", [row for row in ROWS if row.counted], ids=str)
def test_the_card_has_the_models_flops_and_activations(row: Row) -> None:
    workload = workload_of(row)
    model = workload.build().eval()
    kept = 0

    def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal kept
        kept += output.numel() * output.element_size()

    for module in model.modules():
        if isinstance(module, ACTIVATIONS) or any(True for _ in module.parameters(recurse=False)):
            module.register_forward_hook(count)
    with FlopCounterMode(display=False) as flops:
        workload.forward(model, batch_of(row, 1), None)
    assert workload.card is not None
    assert workload.card.flops(workload.options, row.shape) == flops.get_total_flops()
    assert workload.card.activation_bytes(workload.options, row.shape) == kept


@each
def test_metrics_are_the_cards_and_sums_of_parts_add_up(row: Row) -> None:
    workload = workload_of(row)
    model = workload.build().eval()
    batch = batch_of(row, 48)

    def sums(piece: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            outputs, _ = workload.forward(model, piece, None)
            return {**workload.measure(outputs, piece), "rows": torch.tensor(float(rows_of(piece)))}

    whole, first, second = sums(batch), sums(part(batch, 0, 17)), sums(part(batch, 17, 48))
    metrics = workload.summarize(whole)
    assert workload.card is not None
    assert metrics.keys() == {"loss", *workload.card.metrics}
    assert all(isinstance(value, float) for value in metrics.values())
    recombined = workload.summarize({name: first[name] + second[name] for name in whole})
    assert recombined == pytest.approx(metrics, rel=1e-5, abs=1e-6)


@each
def test_weights_survive_a_file(row: Row) -> None:
    workload = workload_of(row)
    model, other = workload.build().eval(), workload.build().eval()
    other.load_state_dict(load(save(model.state_dict())))
    batch = batch_of(row, 4)
    with torch.no_grad():
        losses = [
            workload.objective(workload.forward(m, batch, None)[0], batch).value for m in (model, other)
        ]
    assert torch.equal(*losses)


@each
def test_each_phase_learns_a_batch_by_heart(row: Row) -> None:
    workload = workload_of(row)
    model = workload.build()
    batch = batch_of(row, 16)
    for phase in workload.phases():
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(phase.parameters))
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=0.005)
        losses: list[float] = []
        for _ in range(150):
            optimizer.zero_grad()
            loss, _ = phase.loss(model, batch, None)
            loss.value.backward()
            optimizer.step()
            losses.append(loss.value.item())
        assert losses[-1] < row.learned < losses[0]


@each
def test_phases_share_out_all_parameters(row: Row) -> None:
    workload = workload_of(row)
    names = [name for name, _ in workload.build().named_parameters()]
    owners = [[n for n in names if n.startswith(phase.parameters)] for phase in workload.phases()]
    assert sorted(name for owned in owners for name in owned) == sorted(names)


@pytest.mark.parametrize("row", [row for row in ROWS if row.exact], ids=str)
def test_a_batchs_loss_and_gradient_are_the_mean_of_its_rows(row: Row) -> None:
    workload = workload_of(row)
    model, batch = workload.build(), batch_of(row, 12)
    for phase in workload.phases():

        def loss_and_gradient(piece: Batch, phase: Any = phase) -> Tensor:
            model.zero_grad()
            loss, _ = phase.loss(model, piece, None)
            loss.value.backward()
            trained = [p for n, p in model.named_parameters() if n.startswith(phase.parameters)]
            return torch.cat([loss.value.detach().view(1), *(p.grad.flatten() for p in trained)])

        whole = loss_and_gradient(batch)
        parts = [loss_and_gradient(part(batch, *edges)) * share for edges, share in SHARES.items()]
        torch.testing.assert_close(sum(parts), whole, rtol=1e-5, atol=1e-6)


SHARES = {(0, 5): 5 / 12, (5, 12): 7 / 12}


def test_batch_norm_rightly_counts_as_inexact() -> None:
    row = next(row for row in ROWS if not row.exact)
    workload, batch = workload_of(row), batch_of(row, 12)
    model = workload.build()
    (phase,) = workload.phases()
    whole = phase.loss(model, batch, None)[0].value
    parts = sum(phase.loss(model, part(batch, *e), None)[0].value * share for e, share in SHARES.items())
    assert abs(float((whole - parts).detach())) > 1e-4
