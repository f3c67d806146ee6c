"""Every workload of the catalogue keeps the protocol and its card: a line in the table brings its tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from dlsys.spec.card import Tiny
from dlsys.spec.catalogue import WORKLOADS
from dlsys.spec.data.fit import fitting
from dlsys.spec.rows import Rows, Shape
from dlsys.zoo import example
from dlsys.zoo.load import load_workload
from dlsys.zoo.solved import Solved
from dlsys.zoo.workload import Batch, Phase, Workload, rows_of


@dataclass(frozen=True)
class Case:
    """One workload under test, in one of its tiny sizes, on one of the small shapes of its rows."""

    name: str
    tiny: Tiny
    rows: Rows
    shape: Shape

    def __str__(self) -> str:
        sizes = ["x".join(map(str, size)) for size in self.shape.row.values() if size]
        return "-".join([self.name, *map(str, self.tiny.options.values()), *sizes])


def cases() -> Iterator[Case]:
    """Each size of a workload at least once, and each shape of the rows that it takes."""
    for name in WORKLOADS.names():
        card = WORKLOADS.load(name)
        if card.preset:
            continue  # a size of another one
        shapes = [(rows, shape) for rows in card.rows for shape in rows.examples]
        for index in range(max(len(shapes), len(card.tiny))):
            rows, shape = shapes[index % len(shapes)]
            yield Case(name, card.tiny[index % len(card.tiny)], rows, shape)


CASES = list(cases())
SOLVED = [case for case in CASES if "solved" in WORKLOADS.load(case.name).traits]
DESCENDED = [case for case in CASES if case not in SOLVED]
each = pytest.mark.parametrize("case", CASES, ids=str)
each_descended = pytest.mark.parametrize("case", DESCENDED, ids=str)
each_solved = pytest.mark.parametrize("case", SOLVED, ids=str)


pytestmark = pytest.mark.usefixtures("seeded")


def workload_of(case: Case) -> Workload:
    return load_workload(case.name, case.tiny.options, case.shape)


def batch_of(case: Case, rows: int) -> Batch:
    return example.batch_of(case.rows, case.shape, rows)


def exact(case: Case) -> bool:
    """Whether the loss is a mean over rows that do not see each other, as the card says."""
    workload = workload_of(case)
    assert workload.card is not None
    return not workload.card.inexact(workload.options)


def part(batch: Batch, start: int, end: int) -> Batch:
    return {name: tensor[start:end] for name, tensor in batch.items()}


def test_cards_need_no_torch() -> None:
    code = (
        "import sys; from dlsys.spec.catalogue import WORKLOADS\n"
        "for name in WORKLOADS.names():\n"
        "    card = WORKLOADS.load(name); assert card.name == name\n"
        "assert not {'torch', 'ray', 'mlflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", WORKLOADS.names())
def test_a_card_says_what_it_is_and_can_be_fed(name: str) -> None:
    card = WORKLOADS.load(name)
    assert card.title
    assert card.paper
    assert fitting(card.rows), "no source gives such rows"
    assert set(card.published) <= set(card.presets)
    assert all(card.options_of({"preset": preset}) for preset in card.presets)


def published() -> Iterator[tuple[str, str]]:
    """Each published size once: by the name that stands for it, else by its workload's own."""
    cards = [WORKLOADS.load(name) for name in WORKLOADS.names()]
    named = {(card.workload, card.preset): card.name for card in cards if card.preset}
    for card in cards:
        for preset in card.published:
            if named.get((card.workload, preset), card.name) == card.name:
                yield card.name, preset


@pytest.mark.parametrize(("name", "preset"), published())
def test_presets_have_the_published_sizes(name: str, preset: str) -> None:
    card = WORKLOADS.load(name)
    assert card.at is not None
    with torch.device("meta"):
        model = load_workload(name, {"preset": preset}, card.at).build()
    assert sum(parameter.numel() for parameter in model.parameters()) == card.published[preset]


@each
def test_the_card_has_the_models_blocks_and_traits(case: Case) -> None:
    workload = workload_of(case)
    model = workload.build()
    card = workload.card
    assert card is not None
    assert card.name == case.name
    assert workload.Options is card.options
    assert workload.task is card.task
    assert set(card.blocks) <= {name for name, _ in model.named_modules()}
    assert ("dropout" in card.traits) == any(isinstance(m, nn.Dropout) for m in model.modules())
    assert ("phases" in card.traits) == (len(workload.phases()) > 1)
    assert ("solved" in card.traits) == isinstance(workload, Solved) == (not workload.phases())
    _, carry = workload.forward(model, batch_of(case, 2), None)
    assert ("carried-state" in card.traits) == (carry is not None)


@pytest.mark.parametrize("name", sorted({case.name for case in CASES}))
def test_running_statistics_are_told(name: str) -> None:
    """Buffers that a forward pass in training changes, with one of the tiny sizes."""
    changed = False
    for case in (case for case in CASES if case.name == name):
        workload = workload_of(case)
        model = workload.build().train()
        before = {key: buffer.clone() for key, buffer in model.named_buffers()}
        workload.forward(model, batch_of(case, 4), None)
        changed |= any(not torch.equal(before[key], buffer) for key, buffer in model.named_buffers())
    assert ("running-statistics" in WORKLOADS.load(name).traits) == changed


@pytest.mark.parametrize(
    "case", [case for case in CASES if "sequential" in WORKLOADS.load(case.name).traits], ids=str
)
def test_a_sequential_model_is_its_blocks_one_after_another(case: Case) -> None:
    workload = workload_of(case)
    model, batch = workload.build().eval(), batch_of(case, 3)
    outputs, _ = workload.forward(model, batch, None)
    x = batch[next(iter(case.rows.fields))]
    for block in WORKLOADS.load(case.name).blocks:
        x = model.get_submodule(block)(x)
    torch.testing.assert_close(x, outputs)


@each
def test_metrics_are_the_cards_and_sums_of_parts_add_up(case: Case) -> None:
    workload = workload_of(case)
    model = workload.build().eval()
    batch = batch_of(case, 48)

    def sums(piece: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            outputs, _ = workload.forward(model, piece, None)
            return {**workload.measure(outputs, piece), "rows": torch.tensor(float(rows_of(piece)))}

    whole, first, second = sums(batch), sums(part(batch, 0, 17)), sums(part(batch, 17, 48))
    metrics = workload.summarize(whole)
    assert workload.card is not None
    always = {name for name, metric in workload.card.metrics.items() if metric.always}
    assert {"loss", *always} <= metrics.keys() <= {"loss", *workload.card.metrics}
    assert all(isinstance(value, float) for value in metrics.values())

    def together(name: str) -> Tensor:
        if name in workload.listed:
            return torch.cat([second[name], first[name]])
        return first[name] + second[name]

    recombined = workload.summarize({name: together(name) for name in whole})
    assert recombined == pytest.approx(metrics, rel=1e-5, abs=1e-6)


@each
def test_it_is_measured_in_double_precision_too(case: Case) -> None:
    workload = workload_of(case)
    batch = {
        name: tensor.double() if tensor.is_floating_point() else tensor
        for name, tensor in batch_of(case, 3).items()
    }
    with torch.no_grad():
        outputs, _ = workload.forward(workload.build().double().eval(), batch, None)
        sums = {**workload.measure(outputs, batch), "rows": torch.tensor(3.0)}
    assert workload.summarize(sums)["loss"] == pytest.approx(float(sums["loss"]) / 3)


@each
def test_weights_survive_a_file(case: Case) -> None:
    workload = workload_of(case)
    model, other = workload.build().eval(), workload.build().eval()
    other.load_state_dict(load(save(model.state_dict())))
    batch = batch_of(case, 4)
    with torch.no_grad():
        losses = [
            workload.objective(workload.forward(m, batch, None)[0], batch).value for m in (model, other)
        ]
    assert torch.equal(*losses)


@each_descended
def test_each_phase_learns_a_batch_by_heart(case: Case) -> None:
    workload = workload_of(case)
    model = workload.build()
    batch = batch_of(case, 16)
    for phase in workload.phases():
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(phase.parameters))
        begin = {name: value.clone() for name, value in model.state_dict().items()}
        first, least = by_heart(phase, model, batch, rate=0.005)
        if least >= case.tiny.learned:  # some overshoot at that rate, on one kind of CPU or another
            model.load_state_dict(begin)
            first, least = by_heart(phase, model, batch, rate=0.001)
        assert least < case.tiny.learned < first


def by_heart(phase: Phase, model: nn.Module, batch: Batch, rate: float) -> tuple[float, float]:
    """The loss before Adam's first step, and the least of as many steps as the rate takes."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=rate)
    losses: list[float] = []
    for _ in range(round(0.75 / rate)):
        optimizer.zero_grad()
        loss, _ = phase.loss(model, batch, None)
        loss.value.backward()
        optimizer.step()
        losses.append(loss.value.item())
    return losses[0], min(losses)


@each_descended
def test_phases_share_out_all_parameters(case: Case) -> None:
    workload = workload_of(case)
    names = [name for name, _ in workload.build().named_parameters()]
    owners = [[n for n in names if n.startswith(phase.parameters)] for phase in workload.phases()]
    assert sorted(name for owned in owners for name in owned) == sorted(names)


@pytest.mark.parametrize("case", [case for case in DESCENDED if exact(case)], ids=str)
def test_a_batchs_loss_and_gradient_are_the_mean_of_its_rows(case: Case) -> None:
    workload = workload_of(case)
    model, batch = workload.build().double(), batch_of(case, 12)
    batch = {
        name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in batch.items()
    }
    for phase in workload.phases():

        def loss_and_gradient(piece: Batch, phase: Any = phase) -> Tensor:
            model.zero_grad()
            loss, _ = phase.loss(model, piece, None)
            loss.value.backward()
            trained = [p for n, p in model.named_parameters() if n.startswith(phase.parameters)]
            return torch.cat([loss.value.detach().view(1), *(p.grad.flatten() for p in trained)])

        whole = loss_and_gradient(batch)
        parts = [loss_and_gradient(part(batch, *edges)) * share for edges, share in SHARES.items()]
        torch.testing.assert_close(sum(parts), whole, rtol=1e-6, atol=1e-8)


SHARES = {(0, 5): 5 / 12, (5, 12): 7 / 12}


@pytest.mark.parametrize("case", [case for case in DESCENDED if not exact(case)], ids=str)
def test_what_counts_as_inexact_is(case: Case) -> None:
    """Batch norm, say: the loss of a batch is not the mean of its parts'."""
    workload, batch = workload_of(case), batch_of(case, 12)
    model = workload.build()
    (phase,) = workload.phases()
    whole = phase.loss(model, batch, None)[0].value
    parts = sum(phase.loss(model, part(batch, *e), None)[0].value * share for e, share in SHARES.items())
    assert abs(float((whole - parts).detach())) > 1e-6


def solved(case: Case) -> Solved:
    workload = workload_of(case)
    assert isinstance(workload, Solved)
    return workload


@torch.no_grad()
def solve(workload: Solved, model: nn.Module, pieces: list[Batch]) -> list[float]:
    """Makes a step of the pieces of a batch; each of its parts' loss before it."""
    losses = []
    for part_of_step in workload.parts():
        found = [part_of_step.statistics(model, piece) for piece in pieces]
        sums = {
            name: torch.cat([f[name] for f in found])
            if name in workload.gathered
            else torch.stack([f[name] for f in found]).sum(0)
            for name in found[0]
        }
        part_of_step.solve(model, sums)
        losses.append(float(sums["loss"]) / sum(map(rows_of, pieces)))
    return losses


@each_solved
def test_nothing_of_it_has_a_gradient(case: Case) -> None:
    assert not any(parameter.requires_grad for parameter in workload_of(case).build().parameters())


@each_solved
def test_a_step_learns_a_batch_by_heart(case: Case) -> None:
    workload = solved(case)
    model, batch = workload.build(), batch_of(case, 16)
    losses = [solve(workload, model, [batch]) for _ in range(30)]
    for place in range(len(losses[0])):
        assert losses[-1][place] < case.tiny.learned < losses[0][place]


@each_solved
def test_sums_of_parts_solve_for_what_a_whole_batch_does(case: Case) -> None:
    """So any number of workers and micro-batches comes to the same model."""
    workload = solved(case)
    batch = batch_of(case, 24)
    pieces = [part(batch, 13, 24), part(batch, 0, 12), part(batch, 12, 13)]
    whole, apart = workload.build(), workload.build()
    apart.load_state_dict(whole.state_dict())
    for _ in range(20):
        assert solve(workload, whole, [batch]) == pytest.approx(solve(workload, apart, pieces), rel=1e-5)
    torch.testing.assert_close(apart.state_dict(), whole.state_dict(), rtol=1e-5, atol=1e-6)
    assert any(bool(weight.any()) for weight in whole.parameters())
