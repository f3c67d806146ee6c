"""A batch that is padded to its longest row trains what a fixed length trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from harness import Trained, in_workers, job, train, train_worker
from torch import Tensor, nn

from dlsys.data import load
from dlsys.data.text.padding import rounded
from dlsys.errors import DataError, SpecError
from dlsys.spec.data import LabelledTexts, OwnSource

ROWS, LONGEST = 48, 29
TOKENS = [[2 + (row * 3 + place) % 7 for place in range(1 + row * 5 % LONGEST)] for row in range(ROWS)]
LABELS = [row % 2 for row in range(ROWS)]


class Attentive(nn.Module):
    """Attends where a token stands."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(32, 8)
        self.attention = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.classes = nn.Linear(8, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.attention(self.embedding(input_ids), src_key_padding_mask=attention_mask == 0)
        weights = attention_mask[..., None] / attention_mask.sum(1)[:, None, None]
        return self.classes((hidden * weights).sum(1))


class Items:
    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"input_ids": TOKENS[row], "label": LABELS[row]}


class Tuples(Items):
    def __getitem__(self, row: int) -> Any:
        return TOKENS[row], LABELS[row]


def columns() -> dict[str, Any]:
    return {"input_ids": TOKENS, "label": np.array(LABELS)}


def table() -> pa.Table:
    return pa.table(columns())


def hugging_face() -> datasets.Dataset:
    return datasets.Dataset.from_dict({"input_ids": TOKENS, "label": LABELS})


def odd(kind: str) -> dict[str, Any]:
    rows: dict[str, Any] = {
        "floats": [[0.5]] * ROWS,
        "texts": [["a"]] * ROWS,
        "numbers": list(range(ROWS)),
        "others": TOKENS,
        "few": TOKENS[:9],
    }
    more = {"types": [[1]] * ROWS} if kind == "others" else {}
    return {"input_ids": rows[kind], "label": np.array(LABELS), **more}


JOB = """
kind: train
name: test
workload: test_padding:Attentive
inputs: [input_ids, attention_mask]
data: {source: texts, path: r.csv, text: text, target: y, pad: longest}
batch_size: 8
optimizer: {name: sgd, lr: 0.1}
stop: {epochs: 2}
tracking: {log_every: 1}
"""
PAD = {"pad_with": {"input_ids": 0}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [f"{' '.join(f'w{token}' for token in row)},{LABELS[place]}" for place, row in enumerate(TOKENS)]
    (tmp_path / "r.csv").write_text("\n".join(["text,y", *lines]))
    return tmp_path


def close(one: Trained, two: Trained) -> None:
    for name in ("train/loss", "valid/loss", "valid/accuracy", "test/loss"):
        assert one.points[name] == pytest.approx(two.points[name], abs=1e-5), name
    for name, weight in one.weights.items():
        assert torch.allclose(weight, two.weights[name], atol=1e-5), name


@pytest.mark.parametrize("length", [128, 13])
def test_batches_of_texts_are_as_long_as_their_longest_row(length: int, folder: Path) -> None:
    given = {"source": "texts", "path": "r.csv", "text": "text", "target": "y", "length": length}
    whole = load(LabelledTexts(**given), folder)
    short = load(LabelledTexts(**given, pad="longest"), folder)
    assert whole.shape == short.shape
    assert whole.learnt == short.learnt
    widths = set()
    for start in range(len(whole.train) - 1):
        rows = np.arange(start, start + 2)
        one, two = whole.train.batch(rows), short.train.batch(rows)
        assert one["input_ids"].shape[1] == min(length, LONGEST)
        longest, width = int(one["attention_mask"].sum(1).max()), two["input_ids"].shape[1]
        assert width == two["attention_mask"].shape[1] == min(rounded(longest), length, LONGEST)
        assert torch.equal(one["input_ids"][:, :width], two["input_ids"])
        assert torch.equal(one["attention_mask"][:, :width], two["attention_mask"])
        assert not one["attention_mask"][:, width:].any()
        widths.add(width)
    assert len(widths) > 1


def test_it_trains_what_a_fixed_length_trains(folder: Path) -> None:
    whole = train(job(JOB, "data.pad=length"), folder)
    for name in ("checkpoints", "artifacts"):
        (folder / name).rename(folder / f"{name}-of-whole")
    close(train(job(JOB, "gradient.accumulate=2"), folder), whole)


def test_workers_with_batches_of_several_lengths_train_the_same(folder: Path) -> None:
    whole = train(job(JOB, "data.pad=length"), folder)
    for name in ("checkpoints", "artifacts"):
        (folder / name).rename(folder / f"{name}-of-whole")
    spec = job(JOB, "strategy.name=ddp", "resources.workers=2")
    close(in_workers(2, train_worker, spec, str(folder))[0], whole)


@pytest.mark.parametrize("kind", ["Items", "Tuples", "columns", "table", "hugging_face"])
def test_lists_of_ones_own_are_padded(kind: str, tmp_path: Path) -> None:
    fields = {"fields": ("input_ids", "label")} if kind == "Tuples" else {}
    splits = load(OwnSource(source=f"test_padding:{kind}", classes=2, **PAD, **fields), tmp_path)
    rows = np.arange(len(splits.train))
    whole = splits.train.batch(rows)
    assert set(whole) == {"input_ids", "attention_mask", "label"}
    assert whole["input_ids"].shape == (len(rows), 32)
    assert whole["input_ids"].dtype == whole["attention_mask"].dtype == torch.int64
    known = {tuple(tokens): label for tokens, label in zip(TOKENS, LABELS, strict=True)}
    for ids, mask, label in zip(
        *(whole[name] for name in ("input_ids", "attention_mask", "label")), strict=True
    ):
        assert known[tuple(ids[mask.bool()].tolist())] == label
        assert not ids[~mask.bool()].any()
        assert mask.tolist() == sorted(mask.tolist(), reverse=True)
    short = rows[whole["attention_mask"].sum(1).numpy() <= 8]
    assert splits.train.batch(short[:2])["input_ids"].shape == (2, 8)


def test_a_mask_of_ones_own_stays(tmp_path: Path) -> None:
    module = tmp_path / "padding_own_mask.py"
    module.write_text("def rows(): return {'a': [[1, 2], [3]] * 9, 'attention_mask': [[1, 0], [1]] * 9}\n")
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(tmp_path))
        source = OwnSource(source="padding_own_mask:rows", pad_with={"a": -100, "attention_mask": 0})
        rows = load(source, tmp_path).train
        batch = rows.batch(np.arange(len(rows)))
    assert {tuple(row[:2]) for row in batch["a"].tolist()} == {(1, 2), (3, -100)}
    assert (batch["attention_mask"].sum(1) == 1).all()


@pytest.mark.parametrize(
    ("kind", "pad", "said"),
    [
        ("floats", {"input_ids": 0}, "field 'input_ids' has a row torch.float32 .* lists of whole numbers"),
        ("texts", {"input_ids": 0}, "field 'input_ids' has a row of no numbers"),
        ("numbers", {"input_ids": 0}, r"has a row torch.int64 \[\]"),
        ("others", {"input_ids": 0, "types": 0}, "in a row, input_ids, types are of unequal length"),
        ("others", {"ids": 0}, "data.pad_with: no field 'ids': rows have input_ids, label, types"),
        ("few", {"input_ids": 0}, "its fields are of unequal length: label 48, input_ids 9"),
    ],
)
def test_what_cannot_be_padded_is_told(kind: str, pad: dict[str, int], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        load(OwnSource(source="test_padding:odd", kind=kind, pad_with=pad), tmp_path)


@pytest.mark.parametrize("strategy", ["pipeline", "tensor"])
@pytest.mark.parametrize(
    ("data", "option"),
    [
        ("{source: texts, path: r.csv, text: text, target: y, pad: longest}", "pad"),
        ("{source: 'test_padding:columns', pad_with: {input_ids: 0}}", "pad_with"),
    ],
)
def test_strategies_of_one_length_refuse_it(strategy: str, data: str, option: str) -> None:
    with pytest.raises(
        SpecError, match=rf"data\.{option}: makes batches of several lengths, and under {strategy}"
    ):
        job(JOB, f"data={data}", f"strategy.name={strategy}", "resources.workers=2")
