from __future__ import annotations

import math
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from dlsys.data.text.pydoc import pydoc
from dlsys.spec import load
from dlsys.spec.data import Pydoc
from dlsys.spec.rows import TEXT, Shape
from dlsys.zoo import measure
from dlsys.zoo.example import batch_of
from dlsys.zoo.language.char_rnn.card import CharRNNOptions
from dlsys.zoo.language.char_rnn.model import SAMPLE_LENGTH, CharModel, CharRNN

JOB = Path(__file__).parents[2] / "jobs/language/char_rnn.yaml"
SHAPE = Shape(row={"tokens": (6,), "targets": (6,)}, vocabulary=tuple("\nabcdefg"))


def make(**options: object) -> tuple[CharRNN, CharModel]:
    torch.manual_seed(0)
    workload = CharRNN(CharRNNOptions.model_validate(options), SHAPE)
    model = workload.build()
    assert isinstance(model, CharModel)
    return workload, model.eval()


cells = pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])


@cells
@pytest.mark.parametrize("layers", [1, 3])
def test_the_carry_continues_a_text_exactly(cell: str, layers: int) -> None:
    _, model = make(cell=cell, layers=layers, hidden=5)
    tokens = torch.randint(8, (4, 12))
    whole, end = model(tokens, None)
    first, carry = model(tokens[:, :7], None)
    assert all(part.shape == (4, layers, 5) and not part.requires_grad for part in carry)
    second, carry = model(tokens[:, 7:], carry)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    torch.testing.assert_close(carry, end)


@cells
def test_rows_of_a_carry_are_their_rows_own(cell: str) -> None:
    _, model = make(cell=cell, layers=2, hidden=5)
    tokens = torch.randint(8, (4, 6))
    _, carry = model(tokens, None)
    whole, _ = model(tokens, carry)
    part, _ = model(tokens[1:3], tuple(state[1:3] for state in carry))
    torch.testing.assert_close(part, whole[1:3])


def test_no_gradient_crosses_a_batchs_border() -> None:
    workload, model = make()
    batch = {"tokens": torch.randint(8, (2, 6)), "targets": torch.randint(8, (2, 6))}
    (phase,) = workload.phases()
    _, carry = phase.loss(model, batch, None)
    assert all(state.grad_fn is None for state in carry)


class Unrolled:
    """The cells' equations as torch's documentation gives them, one step at a time."""

    def __init__(self, model: CharModel, cell: str) -> None:
        self.model, self.cell = model, cell

    def __call__(self, tokens: Tensor) -> Tensor:
        x = self.model.embedding(tokens)
        for layer in self.model.recurrent:
            h = c = torch.zeros(len(tokens), layer.hidden_size)
            outputs = []
            for t in range(tokens.shape[1]):
                inner = F.linear(x[:, t], layer.weight_ih_l0, layer.bias_ih_l0)
                outer = F.linear(h, layer.weight_hh_l0, layer.bias_hh_l0)
                if self.cell == "lstm":
                    i, f, g, o = (inner + outer).chunk(4, dim=1)
                    i, f, o = (gate.sigmoid() for gate in (i, f, o))
                    c = f * c + i * g.tanh()
                    h = o * c.tanh()
                elif self.cell == "gru":
                    (r, z, n), (hr, hz, hn) = inner.chunk(3, dim=1), outer.chunk(3, dim=1)
                    r, z = (r + hr).sigmoid(), (z + hz).sigmoid()
                    n = (n + r * hn).tanh()
                    h = (1 - z) * n + z * h
                else:
                    h = (inner + outer).tanh()
                outputs.append(h)
            x = torch.stack(outputs, dim=1)
        logits: Tensor = self.model.output(x)
        return logits


@cells
@pytest.mark.parametrize("layers", [1, 2])
def test_a_cell_is_counted_as_if_unrolled(cell: str, layers: int) -> None:
    """torch's own count of an LSTM on a CPU has only the last layer: the cell is one opaque kernel."""
    workload, model = make(cell=cell, layers=layers, hidden=5, embedding=3)
    tokens = torch.randint(8, (1, 6))
    unrolled = Unrolled(model, cell)
    with FlopCounterMode(display=False) as flops:
        logits = unrolled(tokens)
    torch.testing.assert_close(logits, model(tokens, None)[0])
    assert measure.count(workload, partial(batch_of, TEXT, SHAPE)).flops == flops.get_total_flops()


def test_samples_are_text_that_the_seed_decides() -> None:
    workload, model = make()
    text = workload.samples(model, 3)["sample.txt"]
    assert isinstance(text, str)
    assert len(text) == SAMPLE_LENGTH
    assert set(text) <= set(SHAPE.vocabulary)
    assert workload.samples(model, 3) == {"sample.txt": text}
    assert workload.samples(model, 4) != {"sample.txt": text}


def test_bits_are_nats_over_ln_2() -> None:
    workload, _ = make()
    metrics = workload.summarize({"loss": torch.tensor(6.0), "rows": torch.tensor(4.0)})
    assert metrics == {"loss": 1.5, "bits_per_char": pytest.approx(1.5 / math.log(2))}


def kneser_ney_bits(train: list[int], test: list[int], order: int, vocabulary: int) -> float:
    """Bits a character of an interpolated n-gram model (Kneser and Ney 1995; Chen and Goodman
    1999, section 4.1.6), whose discounts come from the training text."""
    counts = Counter(zip(*(train[i:] for i in range(order)), strict=False))
    levels = []
    for _ in range(order):
        total: Counter[tuple[int, ...]] = Counter()
        kinds: Counter[tuple[int, ...]] = Counter()
        shorter: Counter[tuple[int, ...]] = Counter()
        for gram, count in counts.items():
            total[gram[:-1]] += count
            kinds[gram[:-1]] += 1
            shorter[gram[1:]] += 1
        once, twice = (sum(count == n for count in counts.values()) for n in (1, 2))
        levels.append((counts, total, kinds, once / (once + 2 * twice)))
        counts = shorter
    bits = 0.0
    for end in range(order - 1, len(test)):
        chance = 1 / vocabulary
        for length, (counts, total, kinds, discount) in enumerate(reversed(levels)):
            history = tuple(test[end - length : end])
            if total[history]:
                left = max(counts[*history, test[end]] - discount, 0)
                chance = (left + discount * kinds[history] * chance) / total[history]
        bits -= math.log2(chance)
    return bits / (len(test) - order + 1)


@pytest.mark.parametrize("order", [3, 4])
def test_what_the_job_expects_beats_counting(order: int) -> None:
    job = load(JOB).job
    assert isinstance(job.data, Pydoc)
    splits = pydoc(job.data, JOB.parent)

    def text(split: object) -> list[int]:
        return [int(token) for token in split.fields["tokens"].flatten()]  # type: ignore[attr-defined]

    bits = kneser_ney_bits(text(splits.train), text(splits.valid), order, len(splits.shape.vocabulary))
    assert 1.5 < bits < 3  # a broken baseline would be easy to beat
    assert job.expect["valid/bits_per_char"].relation == "<="
    assert job.expect["valid/bits_per_char"].bound < bits - 0.05
